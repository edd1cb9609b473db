"""`./run mutants [TEXT …]`: take out one defence at a time, and see its test fail.

Each row of `table` is planted in a copy of this tree, and the test that it names runs there; rows
whose test boots a machine share one: see `on_machine`. A row whose test passes all the same has
survived: nothing holds that defence. TEXT picks the rows whose file or test contains it. The tests
must pass before anything is planted."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
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
    arguments = parser.parse_args()
    rows = [
        row
        for row in MUTANTS
        if not arguments.text or any(one in row.file or one in row.test for one in arguments.text)
    ]
    with tempfile.TemporaryDirectory(prefix="remo-mutants-") as directory:
        trees: queue.Queue[pathlib.Path] = queue.Queue()
        for number in range(max(arguments.jobs, 1)):
            trees.put(_copy(pathlib.Path(directory, str(number))))

        def fate_of(row: Mutant) -> Fate:
            tree = trees.get()
            try:
                return _plant(tree, row)
            finally:
                trees.put(tree)

        began = time.monotonic()
        local, booting = ([row for row in rows if row.boots is boots] for boots in (False, True))
        tests = list(dict.fromkeys(row.test for row in local))
        status, said = _pytest(trees.queue[0], *tests, seconds=TEST_SECONDS * (1 + len(tests))) if tests else (0, "")
        if status != 0:
            print(said)
            print("mutants: a test fails although nothing was planted")
            return 1
        fates = []
        with concurrent.futures.ThreadPoolExecutor(max(arguments.jobs, 1)) as pool:
            for row, fate in zip(local, pool.map(fate_of, local), strict=True):
                print(f"{fate.value:8}  {row}", flush=True)
                fates.append(fate)
        for row, fate in _on_machine(trees.queue[0], booting):
            print(f"{fate.value:8}  {row}", flush=True)
            fates.append(fate)
    killed = fates.count(Fate.KILLED)
    print(
        f"{len(rows)} planted in {time.monotonic() - began:.0f} s: {killed} killed, {fates.count(Fate.SURVIVED)} survived"
    )
    return int(any(fate not in (Fate.KILLED, Fate.SKIPPED) for fate in fates) or len(fates) != len(rows) or not rows)


def _on_machine(tree: pathlib.Path, rows: list[Mutant]) -> Iterator[tuple[Mutant, Fate]]:
    """The rows whose test boots a machine, on one machine."""
    if not rows:
        return
    command = [sys.executable, "-m", "tests.mutants.on_machine", *(str(MUTANTS.index(row)) for row in rows)]
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
