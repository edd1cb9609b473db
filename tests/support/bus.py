"""A private message bus with the status service on it, driven by the real `busctl`."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from dbus_next.aio.message_bus import MessageBus

from tests.support.machine import WAIT_SECONDS, poll, unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

BUS_NAME = "io.get2know.RemoBroker1"
ROOT = "/io/get2know/RemoBroker1"
MANAGER = f"{BUS_NAME}.Manager"
PROJECT = f"{BUS_NAME}.Project"
PROPERTIES = "org.freedesktop.DBus.Properties"

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
POLICY = REPOSITORY / f"policy/{BUS_NAME}.conf"

PROGRAM = (sys.executable, "-m", "remo_broker.bus.main")
# Nothing here takes a second; the rest is for a busy machine.
RUN_SECONDS = 30

_HEAD = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
"""
_OPEN = f"""{_HEAD}<busconfig>
  <type>session</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
# The contents of /usr/share/dbus-1/system.conf, without its includes.
_SYSTEM = f"""{_HEAD}<busconfig>
  <type>system</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  <include>%s</include>
</busconfig>
"""


def unix_address(path: pathlib.Path) -> str:
    """The D-Bus address of a socket, escaped as the specification requires."""
    return "unix:path=" + quote(str(path), safe="/-_.").replace("~", "%7E")


# busctl's debug message once it is monitoring. With --json, systemd 257 logs nothing at other
# levels.
MONITORS = re.compile(r"member=BecomeMonitor cookie=(\d+) .*type=method_return [^\n]*reply_cookie=\1 ", re.DOTALL)


class Bus:
    """A running message bus."""

    def __init__(self, path: pathlib.Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.address = unix_address(path)
        self.path = path

    def busctl(
        self, *arguments: str, check: bool = True, user: Sequence[str] = (), timeout: float = RUN_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*user, "busctl", f"--address={self.address}", "--no-pager", *arguments],
            env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},  # the service's
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"busctl {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def get(self, name: str, path: str = ROOT, interface: str = MANAGER) -> Any:
        """Get a property with busctl."""
        printed = self.busctl("--json=short", "get-property", BUS_NAME, path, interface, name).stdout
        return json.loads(printed)["data"]

    def call(self, path: str, interface: str, member: str, *arguments: str) -> Any:
        """Call a method with busctl; return its reply."""
        printed = self.busctl("--json=short", "call", BUS_NAME, path, interface, member, *arguments).stdout
        return json.loads(printed)["data"] if printed.strip() else None

    def refusal(self, *arguments: str) -> str:
        """The error text of a busctl command that must fail."""
        done = self.busctl(*arguments, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr.strip()

    def has_owner(self, name: str = BUS_NAME) -> bool:
        printed = self.busctl("list", "--unique", "--acquired", "--json=short").stdout
        return any(entry["name"] == name for entry in json.loads(printed))

    def stop(self) -> None:
        """End it, even if stopped (SIGSTOP)."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def private_bus(directory: pathlib.Path, *, policy: str = "") -> Iterator[Bus]:
    """A bus that listens in `directory`: open to all users, or with the system bus's rules and the
    text of a `policy` file.
    """
    if shutil.which("dbus-daemon") is None:
        unavailable("dbus-daemon is not installed here: ./run test installs it")
    listen = directory / "bus"
    config = directory / "bus.conf"
    if policy:
        (directory / "policy.conf").write_text(policy)
        config.write_text(_SYSTEM % (unix_address(listen), escape(str(directory / "policy.conf"))))
    else:
        config.write_text(_OPEN % unix_address(listen))
    directory.chmod(0o755)
    process = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"])
    try:
        poll("the bus", lambda: _answers(listen))
        listen.chmod(0o666)
        yield Bus(listen, process)
    finally:
        process.kill()
        process.wait()


def _answers(path: pathlib.Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_SECONDS)
        client.connect(str(path))
        client.sendall(f"\0AUTH EXTERNAL {str(os.getuid()).encode().hex()}\r\n".encode())
        return client.recv(64).startswith(b"OK ")
    return False


@contextlib.asynccontextmanager
async def other_client(bus: Bus) -> AsyncIterator[Any]:
    """A dbus-next client; by itself, dbus-next would leave the socket open."""
    client: Any = await MessageBus(bus_address=bus.address).connect()
    try:
        yield client
    finally:
        client.disconnect()
        with contextlib.suppress(Exception):
            await client.wait_for_disconnect()
        client._stream.close()
        client._sock.close()


class BusProcess:
    """A running remo-broker-bus."""

    def __init__(self, process: subprocess.Popen[str], log: pathlib.Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self, seconds: float = RUN_SECONDS) -> int:
        """Wait for it to exit by itself; return its exit status."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()


@contextlib.contextmanager
def bus_service(
    bus: Bus | str, status_socket: pathlib.Path, *arguments: str, named: bool = True, user: Sequence[str] = ()
) -> Iterator[BusProcess]:
    """The service on `bus`; with `named`, wait until it owns its name."""
    address = bus if isinstance(bus, str) else bus.address
    log = pathlib.Path(f"{status_socket}.log")
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*user, *PROGRAM, f"--bus-address={address}", f"--status-socket={status_socket}", *arguments],
            cwd=REPOSITORY,
            stderr=stderr,
            text=True,
        )
    service = BusProcess(process, log)
    try:
        if named:
            assert isinstance(bus, Bus)
            poll("the service to have its name", lambda: bus.has_owner() or process.poll() is not None)
        yield service
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in service.log, service.log


class Monitor:
    """`busctl monitor`: the service's messages as they arrive."""

    def __init__(self, process: subprocess.Popen[str], output: pathlib.Path) -> None:
        self._process = process
        self._output = output

    def messages(self) -> list[dict[str, Any]]:
        """All messages so far, as busctl's JSON."""
        lines = self._output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def signals(self) -> list[dict[str, Any]]:
        return [message for message in self.messages() if message["type"] == "signal"]

    def members(self) -> list[str]:
        return [message["member"] for message in self.signals()]

    def changed(self, name: str, path: str = ROOT) -> list[Any]:
        """A property's values from PropertiesChanged, in order."""
        told = [one["payload"]["data"][1] for one in self.signals() if one["path"] == path and _tells(one)]
        return [properties[name]["data"] for properties in told if name in properties]


def _tells(message: dict[str, Any]) -> bool:
    return bool(message["member"] == "PropertiesChanged")


@contextlib.contextmanager
def monitor(bus: Bus, directory: pathlib.Path) -> Iterator[Monitor]:
    output = directory / "monitor"
    errors = directory / "monitor.err"
    with output.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(
            ["busctl", f"--address={bus.address}", "--json=short", "monitor", BUS_NAME],
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "debug"},
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
    try:
        poll("busctl to monitor", lambda: MONITORS.search(errors.read_text()))
        yield Monitor(process, output)
    finally:
        process.kill()
        process.wait()
