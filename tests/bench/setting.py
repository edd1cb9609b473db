"""What every measurement is given: where, by what, how often."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.broker import Unit
    from tests.bench.contestant import Place
    from tests.bench.generator import Generator

_begun = time.monotonic()


@dataclasses.dataclass(frozen=True)
class Setting:
    """`unit` is None where no systemd runs: then only the contestants are measured."""

    place: Place
    generator: Generator
    unit: Unit | None
    rounds: int
    quick: bool

    def many(self, number: int) -> int:
        """So many repetitions, or a fifth of them in a quick run."""
        return max(number // 5, 1) if self.quick else number


def say(what: str) -> None:
    """Progress, on standard error."""
    print(f"{time.monotonic() - _begun:6.1f} s  {what}", file=sys.stderr, flush=True)
