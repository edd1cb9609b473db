"""Rows whose test boots a machine.

    python -m tests.mutants.on_machine UNTIL NUMBER...

boots and installs once, plants each of these rows of the table in the installed file, runs its test
there, and prints the number and the name of the row's `Fate` on a line. Booting and installing for
each row would take an hour for all. UNTIL is a time of the monotonic clock, after which no row is
planted.

A row may leave the machine in disorder, which is no fault of the next one: each test must pass
right before its row is planted.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.mutants.mutant import Fate, Mutant
from tests.mutants.table import MUTANTS
from tests.support import installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Bus, Machine

PACKAGES = "/usr/lib/remo-broker/lib/python3.*/site-packages"


def main() -> None:
    results = sys.stdout
    until = float(sys.argv[1])
    rows = {number: MUTANTS[number] for number in map(int, sys.argv[2:])}
    try:
        with installation.installed() as machine:

            @contextlib.contextmanager
            def booted(_bus: Bus) -> Iterator[Machine]:
                yield machine

            installation.installed = booted  # type: ignore[assignment]  # for tests/machine/conftest.py, not imported yet
            for number, row in rows.items():
                if time.monotonic() >= until:
                    break
                fate = run(row.test)
                if fate is Fate.SURVIVED:
                    fate = plant(machine, row)
                elif fate is Fate.KILLED:
                    fate = Fate.FAILED
                print(number, fate.name, file=results, flush=True)
    except pytest.skip.Exception:
        for number in rows:
            print(number, Fate.SKIPPED.name, file=results, flush=True)


def plant(machine: Machine, row: Mutant) -> Fate:
    path = machine.path(installed_path(machine, row.file))
    text = path.read_text()
    if text.count(row.old) != 1:
        return Fate.STALE
    compiled = {one: one.read_bytes() for one in path.parent.glob(f"__pycache__/{path.stem}.*.pyc")}
    path.write_text(text.replace(row.old, row.new))
    for one in compiled:
        one.unlink()  # Python compares times by the second: the defect may be newer
    machine.systemctl("daemon-reload")
    try:
        return run(row.test)
    finally:
        path.write_text(text)
        for one, content in compiled.items():
            one.write_bytes(content)
        machine.systemctl("daemon-reload")


def run(test: str) -> Fate:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", test])
    if status == pytest.ExitCode.TESTS_FAILED:
        return Fate.KILLED
    if status != pytest.ExitCode.OK:
        return Fate.BROKEN
    return Fate.SURVIVED if " passed" in said.getvalue() else Fate.SKIPPED


def installed_path(machine: Machine, file: str) -> str:
    """Where `./run install` has put a file of the tree."""
    path = pathlib.PurePath(file)
    if file.startswith("remo_broker/"):
        return machine.run(["sh", "-c", f"ls {PACKAGES}/{file}"]).stdout.strip()
    if path.suffix == ".tmpfiles":  # a defect in the creation of users would have to be planted before they are created
        return f"/usr/lib/tmpfiles.d/{path.stem}.conf"
    return f"/usr/lib/systemd/system/{path.name}"


if __name__ == "__main__":
    main()
