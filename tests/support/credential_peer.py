"""A test in the place of systemd: it connects to the credentials socket, and reads to the end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
from typing import TYPE_CHECKING

from remo_broker.broker.credential_refusal import REFUSAL_BYTES
from tests.support.broker import WAIT_SECONDS, Broker
from tests.support.machine import unavailable

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket
    from tests.support.units import Units

VALUE = "zqMarkerqz"
RULES = """
[credentials."*.*"]
password = "PASSWORD"
whole = "aws"
user = "aws.user"
field-of-none = "PASSWORD.user"
"""


def own_unit() -> str:
    """The unit of the control group that this process is in: systemd's peers are in the unit's
    they name."""
    path = pathlib.Path("/proc/self/cgroup").read_text()
    groups = {name: group for _, name, group in (line.split(":", 2) for line in path.splitlines())}
    own, unified = groups.get("name=systemd", "/"), groups.get("", "/")
    found = unified if own == "/" or ("." in unified and "." not in own) else own
    outermost = next((one for one in found.split("/") if one and not one.endswith(".slice")), "load.service")
    if "." not in outermost:
        unavailable(f"these tests run in the control group {found}, which is no unit's")
    return outermost.removeprefix("_")


class Systemd:
    """Connects as systemd does."""

    def __init__(self, units: Units, broker: Broker) -> None:
        self.path = units.directory / "credentials.sock"
        self.broker = broker
        self.unit = own_unit()
        self._open = contextlib.ExitStack()
        self._asked = 0

    def connect(
        self, credential: str = "password", address: bytes | None = None, *, half: bool = True
    ) -> socket.socket:
        """`half`: close the sending side, as systemd does before it reads."""
        self._asked += 1
        client = self._open.enter_context(socket.socket(socket.AF_UNIX))
        client.bind(b"\0%x%x/unit/" % (os.getpid(), self._asked) + (address or f"{self.unit}/{credential}".encode()))
        client.connect(str(self.path))  # may wait for room in the queue
        client.settimeout(WAIT_SECONDS)
        if half:
            client.shutdown(socket.SHUT_WR)
        return client

    def load(self, credential: str = "password") -> bytes:
        return rest(self.connect(credential))

    def records(self, **fields: str) -> list[dict[str, str]]:
        return self.broker.records("fetch", unit=self.unit, **fields)

    def close(self) -> None:
        self._open.close()


def rest(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as stream:
        return stream.read()


def is_refusal(answer: bytes) -> bool:
    return len(answer) == REFUSAL_BYTES and answer.startswith(b"remo-broker refused credential ")


def restart(systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket) -> Broker:
    """Kill the broker, and start another as systemd does."""
    systemd.broker.process.kill()
    systemd.broker.wait()
    config = systemd.broker.flags
    systemd.broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify, flags=config)
    return systemd.broker


def launch(systemd: Systemd, units: Units, notify: NotifySocket) -> Broker:
    """Another broker, as systemd starts it, which may fail."""
    broker = Broker(
        units.directory.parent,
        listeners=[*units.sockets.items(), *notify.listeners()],
        notify=notify,
        flags=systemd.broker.flags,
    )
    broker.launch()
    return broker
