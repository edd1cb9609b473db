"""How soon a unit that waits for its credential starts: from the push's reply until both units
of a pair are active."""

from __future__ import annotations

import pathlib
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.bench.broker import ALLOWED
from tests.bench.figures import Figure, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.broker import Unit
    from tests.bench.setting import Setting

SERVICE = "remo-broker.service"
NAMES = ("waits-a.service", "waits-b.service")
UNITS = pathlib.Path("/run/systemd/system")
STARTS = 50
SECONDS = 30.0


def waiting_units(setting: Setting, unit: Unit) -> tuple[Figure, str]:
    """Nanoseconds from the push to the later of two units that wait for it."""
    unit.settle()
    with unit.config_file.open("a") as config:
        config.write(f'[credentials."waits-*.service"]\npassword = "{ALLOWED[0]}"\n')
    for name in NAMES:
        (UNITS / name).write_text(
            "[Service]\nType=exec\nLoadCredential=password:/run/remo-broker/credentials.sock\n"
            "ExecStart=/bin/sleep infinity\n"
        )
    _systemctl("daemon-reload")
    _systemctl("restart", SERVICE)
    times = []
    try:
        for _ in range(setting.many(STARTS)):
            unit.ask(b'{"op":"clear-creds"}\n')
            waiting = _stored() + len(NAMES)
            _systemctl("start", "--no-block", *NAMES)
            _until("both to wait", partial(_has_stored, waiting))
            unit.push(len(ALLOWED))
            pushed = time.monotonic_ns()
            _until("both to start", lambda: all(_show(name, "ActiveState") == "active" for name in NAMES))
            times.append(max(1000.0 * int(_show(name, "ActiveEnterTimestampMonotonic")) - pushed for name in NAMES))
            _systemctl("stop", *NAMES)
    finally:
        _systemctl("stop", *NAMES)
        for name in NAMES:
            (UNITS / name).unlink()
        _systemctl("daemon-reload")
    return Figure.of(times), f"{len(times)} pairs, the slowest {milliseconds(max(times))}"


def _until(what: str, probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {what}")
        time.sleep(0.02)


def _stored() -> int:
    """How many descriptors systemd keeps for the broker: listeners, and connections of units
    that wait."""
    return int(_show(SERVICE, "NFileDescriptorStore"))


def _has_stored(count: int) -> bool:
    return _stored() == count


def _show(unit: str, name: str) -> str:
    return subprocess.run(
        ["systemctl", "show", unit, f"-p{name}", "--value"], capture_output=True, check=True, text=True
    ).stdout.strip()


def _systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", "--quiet", *arguments], check=True)
