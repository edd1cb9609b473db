"""`remo-broker-bus`: the process.

D-Bus activation starts it; it exits when idle. See remo-broker-bus(8).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from remo_broker import __version__
from remo_broker.bus.budget import Budget
from remo_broker.bus.connection import DRIVER, SYSTEM_BUS, BusConnection, BusError, CallError, Return, connect
from remo_broker.bus.follower import SYNC_SECONDS, Follower
from remo_broker.bus.idle import IDLE_SECONDS, Callers
from remo_broker.bus.interfaces import BUS_NAME
from remo_broker.bus.log import notice, warning
from remo_broker.bus.service import TOO_MANY, Service
from remo_broker.bus.signals import differences
from remo_broker.bus.unit import BrokerUnit
from remo_broker.bus.users import Users
from remo_broker.protocol.paths import SOCKET_DIR, STATUS_SOCKET

if TYPE_CHECKING:
    from remo_broker.bus.connection import Answer
    from remo_broker.bus.snapshot import StatusSnapshot
    from remo_broker.bus.wire import Incoming

MACHINE_ID = "/etc/machine-id"

# RequestName: the flag to fail if another process owns the name, and the reply when it is ours.
_DO_NOT_QUEUE = 4
_PRIMARY_OWNER = 1


class Ended(Exception):
    """The service cannot continue; a new process may. The text is one line for the log."""


class BusService:
    """The whole service."""

    def __init__(self, status_socket: str) -> None:
        self._service = Service(_machine_id())
        self._users = Users(self._user_of, self._answer)
        self._callers = Callers(self._users.forget)
        self._budget = Budget()
        self._status_socket = status_socket
        self._status = ""
        self._named = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection: BusConnection
        self._unit: BrokerUnit | None = None

    async def run(self, bus_address: str, idle_seconds: float) -> None:
        """Serve until idle, cancelled, or disconnected. Raises BusError, Ended."""
        self._connection = await connect(bus_address, self._called, self._on_message)
        self._unit = BrokerUnit(self._connection)
        follower = Follower(self._status_socket, self._unit, self._changed)
        tasks: list[asyncio.Task[None]] = [asyncio.create_task(follower.run())]
        try:
            # The client that activated us waits until we own the name: a complete reply is worth a
            # short delay.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS):
                    await follower.settled.wait()
            await self._take_name()
            idle = self._callers.until_idle(self._connection, idle_seconds, lambda: self._service.snapshot is not None)
            tasks.append(asyncio.create_task(idle))
            ends: list[asyncio.Future[None]] = [*tasks, self._ended, self._connection.closed]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            if self._connection.closed.done():
                self._connection.closed.result()
                notice("the bus closed the connection; the next call on a new bus starts this service again")
            if self._ended.done():
                self._ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await self._leave()

    def _end(self, why: str) -> None:
        """Make `run` raise Ended."""
        if not self._ended.done():
            self._ended.set_exception(Ended(why))
            self._ended.exception()  # retrieved: otherwise asyncio may warn

    async def _take_name(self) -> None:
        try:
            (reply,) = await self._connection.ask_driver("RequestName", "su", BUS_NAME, _DO_NOT_QUEUE, gives="u")
        except CallError as error:
            if self._connection.closed.done():
                raise BusError(f"{error}; see `systemctl status dbus.service`") from None
            raise Ended(
                f"the bus does not let user {os.geteuid()} own {BUS_NAME} ({error}): is its policy file in "
                "/usr/share/dbus-1/system.d, and is this user the one that it names?"
            ) from None
        if reply != _PRIMARY_OWNER:
            raise Ended(f"another process owns {BUS_NAME}; see `busctl status {BUS_NAME}`")
        self._named = True

    async def _leave(self) -> None:
        """Release the name, reply to earlier calls, disconnect.

        A later call starts a new process.
        """
        _tell_systemd("STOPPING=1")
        if self._named and not self._connection.closed.done():
            self._named = False
            with contextlib.suppress(CallError):
                await self._connection.ask_driver("ReleaseName", "s", BUS_NAME, gives="u")
            await self._users.settle()
        self._connection.close()
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(SYNC_SECONDS):
                await self._connection.closed

    # --- callbacks --------------------------------------------------------------------------------

    def _called(self, call: Incoming) -> Answer | None:
        now = asyncio.get_running_loop().time()
        if self._callers.called(call.sender, now) and self._users.answer(call):
            return None
        return TOO_MANY

    async def _user_of(self, name: str) -> int:
        (uid,) = await self._connection.ask_driver("GetConnectionUnixUser", "s", name, gives="u")
        return int(uid)

    def _answer(self, call: Incoming, uid: int) -> None:
        now = asyncio.get_running_loop().time()
        answer: Answer = TOO_MANY
        if self._budget.allows(uid, now):
            answer = self._service.answer(call)
            self._budget.spend(uid, len(answer.body) if isinstance(answer, Return) else 0, now)
        self._connection.reply(call, answer)

    def _on_message(self, message: Incoming) -> None:
        if message.sender == DRIVER and message.member == "NameLost" and message.body() == [BUS_NAME] and self._named:
            self._end(f"another process has taken {BUS_NAME}")
        if self._unit is not None:
            self._unit.on_signal(message)

    def _changed(
        self, old: StatusSnapshot | None, new: StatusSnapshot | None, replaced: frozenset[str], why: str
    ) -> None:
        if old and new and old.broker.broker_version != new.broker.broker_version:
            # Version is constant during an object's lifetime, and our own code is probably outdated
            # too.
            self._end("the broker now has another version; this service exits and starts again with it")
            return
        self._service.snapshot = new
        if new is not None and self._named:
            for emission in differences(old, new, replaced):
                self._connection.signal(*emission[:4], *emission.values)
        self._report(why or "Following the broker", is_fault=new is None)

    def _report(self, status: str, *, is_fault: bool) -> None:
        if status != self._status:
            self._status = status
            (warning if is_fault else notice)(status)
            _tell_systemd(f"STATUS={status}")


async def serve(bus_address: str, status_socket: str, idle_seconds: float) -> None:
    """Run the service until it ends or a signal stops it."""
    task = asyncio.create_task(BusService(status_socket).run(bus_address, idle_seconds))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(argv: list[str] | None = None) -> int:
    """The program.

    Status 1 if it cannot start or continue and systemd should restart it, else 0.
    """
    options = _parser().parse_args(argv)
    try:
        asyncio.run(serve(options.bus_address, options.status_socket, options.idle_exit_seconds))
    except (BusError, Ended) as error:
        warning(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remo-broker-bus", description="Shows the secret broker's status on the system bus.", allow_abbrev=False
    )
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
    parser.add_argument("--bus-address", metavar="ADDRESS", default=address, help="a bus other than the system bus")
    parser.add_argument(
        "--status-socket",
        metavar="PATH",
        default=f"{SOCKET_DIR}/{STATUS_SOCKET}",
        help="the broker's status socket (%(default)s)",
    )
    parser.add_argument(
        "--idle-exit-seconds",
        metavar="SECONDS",
        type=_whole_number,
        default=IDLE_SECONDS,
        help="exit this long after the last call if no caller is left on the bus; 0: never (%(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"remo-broker-bus {__version__}")
    return parser


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError("must be an integer number of seconds; 0: never")
    return int(text)


def _machine_id() -> str:
    try:
        with open(MACHINE_ID, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeError):
        return ""


def _tell_systemd(state: str) -> None:
    """Call sd_notify(3), if systemd expects it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            notify.send(state.encode())


if __name__ == "__main__":
    sys.exit(main())
