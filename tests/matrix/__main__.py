"""`./run matrix [SUITE …]`: the tests on other Debian releases, and under other Pythons, with a table at the end.

A SUITE is a release, such as `trixie`. debootstrap makes a minimal system of it, once, in
`.cache/roots`. In a copy of that, a newcomer runs `./run demo` and `./run test`, once for each of
the `SURROUNDINGS`. Then tests/machine run on the host and boot the release. A SUITE may also be an
interpreter, such as `python3.12`: the tests that boot no machine run under it, on this host, or in
a release that has a package of it. `another` is a release that is not the host's. With `--jobs`,
several of these runs go on at once, each with its output in a file.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import os
import platform
import sys
from typing import TYPE_CHECKING

from tests.matrix import runs, systems
from tests.matrix.runs import SURROUNDINGS
from tests.matrix.systems import SUITES, say
from tests.support.machine import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Stands for the first of OTHERS that is not the host's own release.
ANOTHER = "another"
OTHERS = ("trixie", "bookworm")
HEAD = ["SUITE", "SYSTEMD", "PYTHON", "TESTS", "PASSED", "SKIPPED", "FAILED", "TIME"]
OUTPUTS = REPOSITORY / "out/matrix"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run matrix", description="Run the tests on other systems and Pythons.")
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"a Debian release, `{ANOTHER}` for one that is not this host's, or pythonX.Y; default: {SUITES}",
    )
    parser.add_argument(
        "--only",
        choices=("newcomer", *(f"newcomer/{one.key}" for one in SURROUNDINGS), "machine", "brief"),
        help="one of the two runs on a release, or a part of it",
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many runs at a time (1)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("making and booting systems takes root: sudo ./run matrix")
    suites = [_another() if one == ANOTHER else one for one in arguments.suites] or SUITES
    plan = [run for suite in suites for run in _planned(suite, arguments.only)]
    rows = _carry_out(plan, max(arguments.jobs, 1))
    _show([HEAD, *(row.cells() for row in rows)])
    return int(any(row.failed or not row.passed for row in rows))


def _planned(suite: str, only: str | None) -> Iterator[Callable[[runs.Output], runs.Row]]:
    """The runs of a suite, whose systems are made first."""
    if suite.startswith("python"):
        yield functools.partial(runs.interpreter, suite)
        return
    root = systems.root(suite)
    machine_root = systems.machine_root(suite, root)
    for around in SURROUNDINGS:
        if only in (None, "newcomer", f"newcomer/{around.key}"):
            yield functools.partial(runs.newcomer, suite, root, machine_root, around)
    if only in (None, "machine"):
        yield functools.partial(runs.machine, suite, machine_root)
    if only == "brief":
        yield functools.partial(runs.brief, suite, machine_root)


def _carry_out(plan: Sequence[Callable[[runs.Output], runs.Row]], jobs: int) -> list[runs.Row]:
    """Their rows, in the order of the plan."""
    if jobs == 1:
        return [run(None) for run in plan]

    def with_output(number: int) -> runs.Row:
        path = OUTPUTS / f"{number + 1}.log"
        with path.open("wb") as output:
            row = plan[number](output)
        say(f"{path}: {'  '.join(row.cells())}")
        return row

    OUTPUTS.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(with_output, range(len(plan))))


def _another() -> str:
    own = platform.freedesktop_os_release().get("VERSION_CODENAME")
    return next(one for one in OTHERS if one != own)


def _show(table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
