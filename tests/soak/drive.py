"""Drive the workload against a broker and watch it; in a machine: progress on standard error, JSON
on standard output.

usage: python -m tests.soak.drive OPERATIONS PROJECTS SEED bar|lines
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.bench import host
from tests.bench.broker import descriptors, resident
from tests.bench.figures import mebibytes
from tests.soak.subject import UnitSubject
from tests.soak.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.subject import Subject

# How often the broker is looked at.
SAMPLES = 100
# What is measured as growth begins after so much of the run: caches have filled by then.
WARM_UP = 0.1


@dataclasses.dataclass(frozen=True)
class SoakSample:
    """The broker after so many operations."""

    operations: int
    seconds: float
    resident_bytes: int
    descriptors: int
    median_ns: float
    max_ns: int


@dataclasses.dataclass(frozen=True)
class SoakResult:
    """What a run came to."""

    samples: list[SoakSample]
    done: dict[str, int]
    gets: int
    audited: int
    counted_twice: int
    """At the most, of the audited."""
    seconds: float

    @property
    def growth_bytes(self) -> int:
        """From the end of the warm-up to the median of the last tenth: a peak counts if it
        lasts."""
        settled = next(one for one in self.samples if one.operations >= WARM_UP * self.samples[-1].operations)
        last = self.samples[-max(len(self.samples) // 10, 1) :]
        return round(statistics.median(one.resident_bytes for one in last)) - settled.resident_bytes

    @property
    def growth_descriptors(self) -> int:
        settled = next(one for one in self.samples if one.operations >= WARM_UP * self.samples[-1].operations)
        return self.samples[-1].descriptors - settled.descriptors

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> SoakResult:
        return cls(**{**fields, "samples": [SoakSample(**one) for one in fields["samples"]]})


def drive(
    subject: Subject, operations: int, projects: int, seed: int, tell: Callable[[SoakSample], None] | None = None
) -> SoakResult:
    """Run the workload; the broker is ended with it."""
    samples: list[SoakSample] = []
    audited, counted_twice = -1, 0
    try:
        workload = Workload(subject.broker, projects, seed)
        begun = time.monotonic()
        samples.append(_look(subject, workload, 0, begun))
        for number in range(1, SAMPLES + 1):
            workload.run(operations * number // SAMPLES - operations * (number - 1) // SAMPLES)
            samples.append(_look(subject, workload, operations * number // SAMPLES, begun))
            if tell:
                tell(samples[-1])
        workload.close()
    finally:
        audited, counted_twice = subject.finish()
    return SoakResult(samples, dict(workload.done), workload.gets, audited, counted_twice, samples[-1].seconds)


def _look(subject: Subject, workload: Workload, operations: int, begun: float) -> SoakSample:
    took = workload.probe()
    return SoakSample(
        operations,
        time.monotonic() - begun,
        resident(subject.pid),
        descriptors(subject.pid),
        statistics.median(took),
        max(took),
    )


def progress(operations: int, *, terminal: bool) -> Callable[[SoakSample], None]:
    """A bar on standard error, or a line for each tenth of the way if that is not a terminal."""
    width = 40
    told = 0

    def tell(sample: SoakSample) -> None:
        nonlocal told
        if not terminal and 10 * sample.operations // operations == told:
            return
        told = 10 * sample.operations // operations
        full = width * sample.operations // operations
        rate = sample.operations / sample.seconds
        left = (operations - sample.operations) / rate
        sys.stderr.write(
            f"[{'█' * full}{'·' * (width - full)}] {sample.operations:>9,} of {operations:,}  {rate:,.0f}/s  "
            f"{left:3.0f} s left  {mebibytes(sample.resident_bytes)}  {sample.descriptors} descriptors"
        )
        sys.stderr.write("  \r" if terminal and sample.operations < operations else "\n")
        sys.stderr.flush()

    return tell


if __name__ == "__main__":
    count, projects, seed = (int(argument) for argument in sys.argv[1:4])
    outcome = drive(UnitSubject(), count, projects, seed, progress(count, terminal=sys.argv[4] == "bar"))
    json.dump({"outcome": outcome.to_json(), "machine": host.describe()}, sys.stdout)
