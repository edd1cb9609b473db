"""Requirement N18: what a person or a script waits for is the client's start."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

from tests.bench.broker import ALLOWED
from tests.bench.figures import Figure, milliseconds
from tests.bench.generator import FetchCommand

if TYPE_CHECKING:
    from tests.bench.broker import Unit
    from tests.bench.setting import Setting

STARTS = 50
ROUNDS = 5
LIMIT = 0.2
SECRET = ALLOWED[0]
# The executable, and a directory with a fnox.toml that has the secret.
FNOX = "FNOX"
FNOX_DIRECTORY = "FNOX_DIRECTORY"
PYTHON_PROGRAM = "/usr/lib/remo-broker/remo-secret"


def client_start(setting: Setting, unit: Unit) -> tuple[Figure, str]:
    """`remo-secret get` as installed, against a bare interpreter, in turn; and what else there is to say."""
    unit.settle()
    get = ("--socket", unit.project_socket(), "get", SECRET)
    commands = {
        "python3 -c pass": FetchCommand(("/usr/bin/python3", "-c", "pass")),
        "remo-secret": FetchCommand(("/usr/bin/remo-secret", *get)),
    }
    if pathlib.Path(PYTHON_PROGRAM).exists():
        commands["remo-secret in Python"] = FetchCommand((PYTHON_PROGRAM, *get))
    fnox, directory = os.environ.get(FNOX), os.environ.get(FNOX_DIRECTORY)
    if fnox and directory:
        commands["fnox get"] = FetchCommand(("env", "-C", directory, fnox, "get", SECRET))
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(max(ROUNDS, setting.rounds)):
        for name, command in commands.items():
            sample = setting.generator.spawn(command, setting.many(STARTS))
            if sample.errors:
                raise RuntimeError(f"{name} failed {sample.errors} times")
            times[name].append(sample.median_ns)
    interpreter, static = times["python3 -c pass"], times["remo-secret"]
    ratios = [mine / bare for mine, bare in zip(static, interpreter, strict=True)]
    return Figure.of(ratios), "; ".join(f"{name} {milliseconds(Figure.of(one).median)}" for name, one in times.items())
