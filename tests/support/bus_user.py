"""Run busctl in a test machine, as its users do."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from remo_broker.bus.interfaces import BUS_NAME, MANAGER
from remo_broker.bus.paths import ROOT
from tests.support.bus import MONITORS
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.machine import Machine


class BusUser:
    """Runs busctl in the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def busctl(self, *arguments: str, user: str | None = None, check: bool = True) -> str:
        done = self.machine.run(["busctl", *arguments], user=user, check=check)
        return done.stdout + done.stderr

    def get(self, name: str, path: str = ROOT, interface: str = MANAGER.name, user: str | None = None) -> Any:
        return json.loads(self.busctl("--json=short", "get-property", BUS_NAME, path, interface, name, user=user))[
            "data"
        ]

    def pids(self) -> set[int]:
        """The processes with a connection to the bus."""
        return {entry["pid"] for entry in json.loads(self.busctl("list", "--json=short")) if entry.get("pid")}

    @contextlib.contextmanager
    def monitor(self) -> Iterator[MonitorOutput]:
        output = self.machine.path("/tmp/monitor")
        command = f"exec busctl --json=short monitor {BUS_NAME} >/tmp/monitor 2>/tmp/monitor.err"
        # An earlier monitor's log would say that this one is ready before it is.
        errors = self.machine.path("/tmp/monitor.err")
        errors.unlink(missing_ok=True)
        process = self.machine.popen(["sh", "-c", f"export SYSTEMD_LOG_LEVEL=debug; {command}"])
        try:
            poll("busctl to monitor", lambda: errors.exists() and MONITORS.search(errors.read_text()))
            yield MonitorOutput(output)
        finally:
            self.machine.run(["pkill", "--full", "busctl --json=short monitor"], check=False)
            process.communicate(timeout=60)


class MonitorOutput:
    """The output of `busctl monitor`, as it arrives."""

    def __init__(self, output: pathlib.Path) -> None:
        self.text = output.read_text

    def signals(self) -> list[dict[str, Any]]:
        lines = self.text().splitlines(keepends=True)
        messages = [json.loads(line) for line in lines if line.endswith("\n")]
        return [message for message in messages if message["type"] == "signal" and message["path"].startswith(ROOT)]

    def members(self) -> list[str]:
        return [message["member"] for message in self.signals()]

    def changed(self, name: str) -> list[Any]:
        told = [one["payload"]["data"][1] for one in self.signals() if one["member"] == "PropertiesChanged"]
        return [properties[name]["data"] for properties in told if name in properties]
