"""Run the measurements where this process runs; progress on standard error, one JSON object on standard output.

usage: python -m tests.bench.measure unit|process ROUNDS full|quick realtime|shared PART...

`unit` is the installed service, whose configuration and registrations are replaced: for a machine of its own only.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from typing import Any

import remo_broker
from tests.bench import beside, contest, growth, host, limits, open_loop, programs
from tests.bench.broker import Unit
from tests.bench.contestant import Place
from tests.bench.generator import Generator
from tests.bench.setting import Setting

LOAD, DISTURBANCE, BESIDE, GROWTH, CONTESTANTS = "load", "disturbance", "beside", "growth", "contestants"
PARTS = (*limits.CHECKS, LOAD, DISTURBANCE, BESIDE, GROWTH, CONTESTANTS)


def _place(check: dict[str, Any]) -> tuple[int, str]:
    """Where a check is in the table: by the number of its requirement, those without one last."""
    number = check["id"].removeprefix("N")
    return (int(number), "") if number.isdigit() else (sys.maxsize, number)


def measure(unit: Unit | None, rounds: int, *, quick: bool, realtime: bool, parts: frozenset[str]) -> dict[str, Any]:
    """Everything that was asked for; limits and growth only of the unit."""
    compiled = programs.build()
    found: dict[str, Any] = {
        "version": remo_broker.__version__,
        "machine": host.describe(),
        "rounds": rounds,
        "quick": quick,
    }
    with tempfile.TemporaryDirectory(prefix="remo-bench-", dir="/var/tmp") as directory:
        work = pathlib.Path(directory)
        place = Place.choose(work, compiled, realtime=realtime)
        setting = Setting(place, Generator(place), unit, rounds, quick)
        found["realtime"] = realtime
        found["pinned"] = setting.place.server_cpu is not None
        if unit is not None:
            unit.prepare()
            checks = limits.measure(setting, parts)
            for part, measure in (
                (LOAD, open_loop.measure),
                (DISTURBANCE, open_loop.disturbances),
                (BESIDE, beside.measure),
            ):
                if part in parts:
                    more, found[part] = measure(setting, unit)
                    checks += [check.to_json() for check in more]
            if checks:
                found["limits"] = sorted(checks, key=_place)
            if GROWTH in parts:
                found["growth"] = growth.measure(setting)
        if CONTESTANTS in parts:
            found |= contest.measure(setting)
    return found


if __name__ == "__main__":
    what, rounds, length, priority, *parts = sys.argv[1:]
    measured = measure(
        Unit() if what == "unit" else None,
        int(rounds),
        quick=length == "quick",
        realtime=priority == "realtime",
        parts=frozenset(parts),
    )
    json.dump(measured, sys.stdout)
