"""`./run soak`: a million operations on a booted systemd, growth watched."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

import pytest

from tests.bench import host, inside
from tests.bench.chart import Line, lines, page
from tests.bench.figures import duration, mebibytes, microseconds, per_second, plain
from tests.bench.setting import say
from tests.bench.table import table
from tests.contract.fuzz import static_client
from tests.soak import drive
from tests.soak.drive import SoakResult
from tests.soak.subject import ProcessSubject
from tests.support.installation import installed

# Requirement N9.
MAX_GROWTH_BYTES = 2 * 2**20
MAX_GROWTH_DESCRIPTORS = 0

FUZZ_SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(
        "./run soak",
        description="Projects that get, ping and ask, pushes, reloads and registrations, on a booted systemd of its own (root "
        "needed). Ends with status 1 where memory grows by more than 2 MiB, a descriptor is left, or a get has no audit record.",
    )
    parser.add_argument("--operations", type=int, default=1_000_000, metavar="N", help="how many (1000000)")
    parser.add_argument("--projects", type=int, default=50, metavar="N", help="how many (50)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the mix of operations (1)")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE.svg", help="memory and latency over time")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="every sample")
    parser.add_argument("--here", action="store_true", help="boot nothing: a plain process that audits to a pipe")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("soak: looking into a broker takes root", file=sys.stderr)
        return 2
    arguments = (options.operations, options.projects, options.seed)
    if options.here:
        with tempfile.TemporaryDirectory(prefix="remo-soak-") as directory:
            subject = ProcessSubject(pathlib.Path(directory))
            outcome = drive.drive(subject, *arguments, drive.progress(options.operations, terminal=sys.stderr.isatty()))
        described = host.describe()
    else:
        try:
            found = _in_machine(arguments)
        except pytest.skip.Exception as why:
            print(f"soak: {why}; --here does without", file=sys.stderr)
            return 2
        outcome, described = SoakResult.from_json(found["outcome"]), found["machine"]
    if options.json:
        options.json.write_text(json.dumps({"outcome": outcome.to_json(), "machine": described}, indent=1) + "\n")
    if options.plot:
        options.plot.write_text(plot(outcome, described))
    print(host.one_line(described), "\n")
    print(figures(outcome))
    failed = faults(outcome) + fuzz_static_client()
    for fault in failed:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if failed else 0


def fuzz_static_client() -> list[str]:
    """A minute of hostile replies for the client in C."""
    say("fuzzing the static client")
    with tempfile.TemporaryDirectory(prefix="remo-soak-") as directory:
        status = static_client.fuzz(FUZZ_SECONDS, pathlib.Path(directory))
    return [f"the static client's fuzzer ended with status {status}; see above"] if status else []


def _in_machine(arguments: tuple[int, ...]) -> dict[str, Any]:
    say("booting a systemd and installing")
    with installed() as booted:
        return inside.module(
            booted, "tests.soak.drive", [*map(str, arguments), "bar" if sys.stderr.isatty() else "lines"]
        )


def figures(outcome: SoakResult) -> str:
    """The table at the end."""
    operations = outcome.samples[-1].operations
    first, last = outcome.samples[0], outcome.samples[-1]
    medians = sorted(sample.median_ns for sample in outcome.samples)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(outcome.done.items(), key=lambda pair: -pair[1]))
    rows = [
        ["operations", f"{operations:,}", kinds],
        [
            "time",
            f"{outcome.seconds:,.0f} s",
            f"{per_second(operations / outcome.seconds)}, by one client program",
        ],
        [
            "gets audited",
            f"{outcome.audited:,}",
            f"of {outcome.gets:,}; journald may write an entry twice when it takes a new file, as it did {outcome.counted_twice} times",
        ],
        [
            "memory growth",
            mebibytes(outcome.growth_bytes),
            f"{mebibytes(MAX_GROWTH_BYTES)} at most, after the first tenth",
        ],
        ["resident", mebibytes(last.resident_bytes), f"{mebibytes(first.resident_bytes)} at the start"],
        ["descriptors left", plain(outcome.growth_descriptors), f"of {last.descriptors} open"],
        [
            "get, median",
            microseconds(medians[len(medians) // 2]),
            f"{microseconds(medians[0])}..{microseconds(medians[-1])}",
        ],
        ["get, longest", duration(max(sample.max_ns for sample in outcome.samples)), f"of {drive.SAMPLES} probes"],
    ]
    return table(["what", "figure", ""], rows, right=("figure",))


def faults(outcome: SoakResult) -> list[str]:
    """What is not as it must be."""
    found = []
    if outcome.growth_bytes > MAX_GROWTH_BYTES:
        found.append(f"memory grew by {mebibytes(outcome.growth_bytes)}; {mebibytes(MAX_GROWTH_BYTES)} are allowed")
    if outcome.growth_descriptors > MAX_GROWTH_DESCRIPTORS:
        found.append(f"{outcome.growth_descriptors} descriptors were left open")
    if not outcome.gets <= outcome.audited <= outcome.gets + outcome.counted_twice:
        found.append(f"{outcome.gets:,} gets have {outcome.audited:,} audit records")
    return found


def plot(outcome: SoakResult, described: dict[str, Any]) -> str:
    """An SVG of memory and latency over time."""
    times = [sample.seconds for sample in outcome.samples]

    def line(label: str, values: list[float]) -> Line:
        return Line(label, list(zip(times, values, strict=True)))

    memory = [line("resident", [sample.resident_bytes / 2**20 for sample in outcome.samples])]
    latency = [line("median of a probe", [sample.median_ns for sample in outcome.samples])]
    longest = [line("longest of a probe", [sample.max_ns for sample in outcome.samples])]
    seconds = "over seconds"
    charts = [
        lines(f"Resident memory, MiB, {seconds}", memory, plain, logarithmic=False),
        lines(f"get, {seconds}", latency, duration, logarithmic=False),
        lines(f"Longest get, {seconds}", longest, duration, logarithmic=False),
    ]
    what = f"./run soak: {outcome.samples[-1].operations:,} operations; {host.one_line(described)}"
    return page(charts, what)


if __name__ == "__main__":
    sys.exit(main())
