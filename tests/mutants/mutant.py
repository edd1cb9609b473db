"""A defect to plant, and what can become of it."""

from __future__ import annotations

import enum
import hashlib
from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` occurs once in `file`; with `new` in its place, `test` must fail."""

    file: str
    old: str
    new: str
    test: str

    @property
    def boots(self) -> bool:
        """Whether the test needs a machine."""
        return self.test.startswith("tests/machine/")

    @property
    def key(self) -> str:
        """What names this row in a file of results."""
        return hashlib.sha256("\0".join(self).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.file}  {(self.new.strip().splitlines() or ['(removed)'])[0]}  {self.test}"


class Fate(enum.Enum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    STALE = "STALE: the text is not in the file exactly once"
    BROKEN = "BROKEN: the test did not run"
    FAILED = "FAILED: the test fails although nothing is planted"
    SKIPPED = "skipped: this host cannot run the test"
