"""What the sidecar is held to: how soon a broker is supplied again, how soon a change is
served, and what it costs."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench.broker import ALLOWED, resident
from tests.bench.contestant import SECRET
from tests.bench.figures import Figure, milliseconds
from tests.bench.generator import FetchCommand
from tests.bench.interpreter import against_interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.broker import Unit
    from tests.bench.setting import Setting

SIDECAR = "remo-sidecar.service"
VAULT = pathlib.Path("/var/lib/remo-bench/vault.env")
CONFIG = pathlib.Path("/etc/remo-broker/sidecar.toml")
KILLS = 50
CHANGES = 100
PUSHES = 20
# Longer than anything here may take.
SECONDS = 30.0
# How long it is watched while nothing happens, and what may wake it: the broker's signs of life.
IDLE_SECONDS = 65.0


@contextlib.contextmanager
def supplied(unit: Unit) -> Iterator[int]:
    """The sidecar with a file as its vault; its pid."""
    unit.settle()
    VAULT.parent.mkdir(parents=True, exist_ok=True)
    change(SECRET)
    CONFIG.write_text(f'[[source]]\nfile = "{VAULT}"\n')
    subprocess.run(["systemctl", "restart", SIDECAR], check=True)
    try:
        shown = subprocess.run(["systemctl", "show", SIDECAR, "-pMainPID", "--value"], capture_output=True, check=True)
        yield int(shown.stdout)
    finally:
        subprocess.run(["systemctl", "stop", SIDECAR], check=True)
        CONFIG.unlink()


def change(value: str) -> None:
    new = VAULT.with_name("new")
    new.write_text("".join(f"{name}={value}\n" for name in ALLOWED))
    new.replace(VAULT)


def until_served(unit: Unit, value: str) -> float:
    """Nanoseconds until a get has this value."""
    began = time.monotonic_ns()
    while time.monotonic_ns() - began < SECONDS * 1e9:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if unit.fetch()["value"] == value:
                return float(time.monotonic_ns() - began)
        time.sleep(0.002)
    raise TimeoutError("the sidecar did not push")


def recovery(setting: Setting, unit: Unit) -> tuple[Figure, str]:
    """N11: from a kill to the first get that has its secret again."""
    times = []
    with supplied(unit):
        for _ in range(setting.many(KILLS)):
            subprocess.run(
                ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "remo-broker.service"], check=True
            )
            times.append(until_served(unit, SECRET))
            time.sleep(0.05)
    return Figure.of(times), f"{len(times)} kills, the longest {milliseconds(max(times))}"


def changes(setting: Setting, unit: Unit) -> tuple[Figure, str]:
    """N12: from a file's change to the get that serves it."""
    times = []
    with supplied(unit):
        for number in range(setting.many(CHANGES)):
            value = f"{SECRET}{number}"
            change(value)
            times.append(until_served(unit, value))
            time.sleep(0.05)
    return Figure.of(times), f"{len(times)} changes, the longest {milliseconds(max(times))}"


def idle(unit: Unit) -> tuple[Figure, Figure, str]:
    """Resident bytes, and how often it ran while nothing happened."""
    with supplied(unit) as pid:
        time.sleep(1)
        before = _switches(pid)
        time.sleep(IDLE_SECONDS)
        woken = _switches(pid) - before
        return Figure.of([resident(pid)]), Figure.of([woken]), f"in {IDLE_SECONDS:g} s"


def _switches(pid: int) -> int:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("no counter of switches")


def start(setting: Setting, unit: Unit) -> tuple[Figure, str]:
    """`remo-sidecar push` of one file, the whole command, against a bare interpreter."""
    unit.settle()
    VAULT.parent.mkdir(parents=True, exist_ok=True)
    change(SECRET)
    command = FetchCommand(("/usr/bin/remo-sidecar", "push", "--file", str(VAULT)))
    return against_interpreter(setting, command, PUSHES)
