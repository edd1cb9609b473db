"""Requirements N10 and N18: what a person or a script waits for is the client's start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.bench.broker import ALLOWED
from tests.bench.check import Check
from tests.bench.figures import Figure, milliseconds
from tests.bench.generator import FetchCommand

if TYPE_CHECKING:
    from tests.bench.broker import Unit
    from tests.bench.setting import Setting

STARTS = 50
ROUNDS = 7
SECRET = ALLOWED[0]
# The executable, and a directory with a fnox.toml that has the secret.
FNOX = "FNOX"
FNOX_DIRECTORY = "FNOX_DIRECTORY"
STATIC_PROGRAM = "/usr/bin/remo-secret"
PYTHON_PROGRAM = "/usr/lib/remo-broker/remo-secret"
ONE_FILE = "/usr/lib/remo-broker/remo-secret.pyz"
GIT_REQUEST = b"protocol=https\nhost=git.example\n\n"

INTERPRETER, STATIC = "python3 -c pass", "remo-secret"


def client_start(setting: Setting, unit: Unit) -> list[Check]:
    """The whole commands against a bare interpreter, in turn."""
    unit.settle()
    where = ("--socket", unit.project_socket())
    get = (*where, "get", SECRET)
    git = (*where, "git-credential", "--host=git.example", f"--secret={SECRET}", "get")
    run = (*where, "exec", "--", "/bin/true")
    # N10: what is run, and at most how many times as long as the interpreter.
    limits = {
        "get": (FetchCommand((PYTHON_PROGRAM, *get)), 1.3),
        "git-credential": (FetchCommand((PYTHON_PROGRAM, *git), GIT_REQUEST), 1.3),
        "get, one file": (FetchCommand((ONE_FILE, *get)), 1.7),
        "exec": (FetchCommand((PYTHON_PROGRAM, *run)), 2.0),
    }
    commands = {
        INTERPRETER: FetchCommand(("/usr/bin/python3", "-c", "pass")),
        STATIC: FetchCommand((STATIC_PROGRAM, *get)),
    }
    commands |= {what: command for what, (command, _) in limits.items()}
    fnox, directory = os.environ.get(FNOX), os.environ.get(FNOX_DIRECTORY)
    if fnox and directory:
        commands["fnox get"] = FetchCommand(("env", "-C", directory, fnox, "get", SECRET))
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(max(ROUNDS, setting.rounds)):
        for name, command in commands.items():
            sample = setting.generator.spawn(command, setting.many(STARTS))
            times[name].append(sample.median_ns)
    bare = Figure.of_noisy(times[INTERPRETER])

    def ratio(name: str) -> Figure:
        took = Figure.of_noisy(times[name])
        return Figure(took.value / bare.value, took.low / bare.value, took.high / bare.value)

    def said(name: str) -> str:
        return f"{milliseconds(Figure.of_noisy(times[name]).value)} to {milliseconds(bare.value)}"

    against = f"against {INTERPRETER}"
    checks = [
        Check("N10", f"remo-secret {what} in Python, {against}", "times", limit, ratio(what), said(what))
        for what, (_, limit) in limits.items()
    ]
    beside = f"; fnox {said('fnox get')}" if "fnox get" in times else ""
    what = f"remo-secret get as installed, {against}"
    return [*checks, Check("N18", what, "times", 0.2, ratio(STATIC), said(STATIC) + beside)]
