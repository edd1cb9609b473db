"""`./run mutants [TEXT …]`: take out one defence at a time, and see its test fail.

Each row of `table` is planted in a copy of this tree, and the test that it names runs there; rows
whose test boots a machine share one: see `on_machine`. A row whose test still passes has
survived: nothing holds that defence. TEXT picks the rows whose file or test contains it. A row is
planted only after its test has passed without it."""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import math
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from tests.mutants.mutant import Fate, Mutant
from tests.mutants.table import MUTANTS
from tests.support.machine import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

# What tests read, beside the .venv that runs them.
COPIED = (
    "feature",
    "man",
    "policy",
    "pyproject.toml",
    "remo_broker",
    "run",
    "schema",
    "tests",
    "units",
    "debian",
    "*.md",
)
# Generous: a test on a machine boots and installs first.
TEST_SECONDS = 300
# pytest's exit status where tests have failed. Others mean that they did not run.
FAILED = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run mutants", description="Take out defences, and see their tests fail.")
    parser.add_argument("text", nargs="*", metavar="TEXT", help="rows whose file or test contains it; default: all")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        metavar="FILE",
        help="write each row's fate to FILE, and do not plant again what it says was killed",
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="start no row after this time; go on with --results (no limit)"
    )
    arguments = parser.parse_args()
    rows = [
        row
        for row in MUTANTS
        if not arguments.text or any(one in row.file or one in row.test for one in arguments.text)
    ]
    if not rows:
        parser.error("no row has that in its file or test")
    results = Results(arguments.results)
    fates: dict[Mutant, Fate] = {}
    for row in rows:
        if (known := results.known.get(row.key)) in (Fate.KILLED, Fate.SKIPPED):
            fates[row] = known
    left = [row for row in rows if row not in fates]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="remo-mutants-") as directory:
        planting = _plant_all(left, pathlib.Path(directory), max(arguments.jobs, 1), began + arguments.seconds)
        for row, fate in planting:
            print(f"{fate.value:8}  {row}", flush=True)
            results.add(row, fate)
            fates[row] = fate
    counts = collections.Counter(fates.values())
    print(
        f"{len(rows)} rows, {time.monotonic() - began:.0f} s:",
        ", ".join(f"{count} {fate.name.lower()}" for fate, count in counts.items()) or "none planted",
        f"({len(rows) - len(fates)} not planted yet)" if len(fates) < len(rows) else "",
    )
    for row, fate in fates.items():
        if fate not in (Fate.KILLED, Fate.SKIPPED):
            print(f"{fate.value:8}  {row}")
    return int(any(fate not in (Fate.KILLED, Fate.SKIPPED) for fate in fates.values()) or len(fates) != len(rows))


class Results:
    """What earlier runs found, in a file with a line for each row."""

    def __init__(self, path: pathlib.Path | None) -> None:
        self.known: dict[str, Fate] = {}
        self._path = path
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                name, key, *_ = line.split()
                self.known[key] = Fate[name]

    def add(self, row: Mutant, fate: Fate) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(f"{fate.name} {row.key} {row}\n")


def _plant_all(rows: list[Mutant], directory: pathlib.Path, jobs: int, until: float) -> Iterator[tuple[Mutant, Fate]]:
    """Each row that begins before `until`, of the monotonic clock, with its fate."""
    trees: queue.Queue[pathlib.Path] = queue.Queue()
    for number in range(jobs):
        trees.put(_copy(directory / str(number)))
    local, booting = ([row for row in rows if row.boots is boots] for boots in (False, True))
    tests = {row.test: threading.Lock() for row in local}
    clean: dict[str, bool] = {}

    def fate_of(row: Mutant) -> Fate | None:
        tree = trees.get()
        try:
            with tests[row.test]:
                if row.test not in clean and time.monotonic() < until:
                    clean[row.test] = _pytest(tree, row.test)[0] == 0
            if time.monotonic() >= until:
                return None
            return _plant(tree, row) if clean[row.test] else Fate.FAILED
        finally:
            trees.put(tree)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for future in concurrent.futures.as_completed(futures := {pool.submit(fate_of, row): row for row in local}):
            if (fate := future.result()) is not None:
                yield futures[future], fate
    if booting and time.monotonic() < until:
        yield from _on_machine(trees.queue[0], booting, until)


def _on_machine(tree: pathlib.Path, rows: list[Mutant], until: float) -> Iterator[tuple[Mutant, Fate]]:
    """The rows whose test boots a machine, on one machine."""
    numbers = (str(MUTANTS.index(row)) for row in rows)
    command = [sys.executable, "-m", "tests.mutants.on_machine", str(until), *numbers]
    with subprocess.Popen(command, cwd=tree, env=_environment(tree), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            number, name = line.split()
            yield MUTANTS[int(number)], Fate[name]


def _copy(tree: pathlib.Path) -> pathlib.Path:
    tree.mkdir(mode=0o755)
    for pattern in COPIED:
        for source in REPOSITORY.glob(pattern):
            if source.is_dir():
                shutil.copytree(source, tree / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, tree)
    if (wheels := REPOSITORY / ".cache/wheels").exists():
        shutil.copytree(wheels, tree / ".cache/wheels", copy_function=os.link)
    return tree


def _plant(tree: pathlib.Path, row: Mutant) -> Fate:
    file = tree / row.file
    text = file.read_text() if file.exists() else ""
    if text.count(row.old) != 1:
        return Fate.STALE
    file.write_text(text.replace(row.old, row.new))
    try:
        status, said = _pytest(tree, "-x", row.test)
    finally:
        file.write_text(text)
    if status == FAILED:
        return Fate.KILLED
    if status != 0:
        return Fate.BROKEN
    return Fate.SURVIVED if re.search(r"\d passed", said) else Fate.SKIPPED


def _environment(tree: pathlib.Path) -> dict[str, str]:
    # A .pyc file is found out of date by the second: a mutant may be younger than that.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("CI", None)
    return environment


def _pytest(tree: pathlib.Path, *arguments: str, seconds: int = TEST_SECONDS) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    try:
        done = subprocess.run(
            command, cwd=tree, env=_environment(tree), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED, "it hangs"
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
