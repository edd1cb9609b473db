"""The tests' measurements, for the end of the run and for HACKING.md; and limits that apply only if
nothing else runs."""

from __future__ import annotations

import os
import random
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Set by `./run faults`.
LONG = "REMO_FAULTS_LONG" in os.environ
# Set to a printed seed to repeat that run.
SEED = int(os.environ.get("REMO_FAULTS_SEED") or random.randrange(1_000_000))


class Figures:
    """Lines for the end of the run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)


def within(measured: float, promised: float) -> bool:
    """Whether it took no longer than promised. Only the long form, which runs alone, measures this;
    elsewhere the event only has to happen."""
    return not LONG or measured < promised


def seconds(times: Sequence[float]) -> str:
    return f"median {statistics.median(times):.2f} s, longest {max(times):.2f} s"
