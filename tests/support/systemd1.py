"""A fake systemd on a private bus, with the broker unit's state set by the test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "org.freedesktop.systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"
UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
UNIT_PATH = "/org/freedesktop/systemd1/unit/remo_2dbroker_2eservice"


class Systemd1:
    """Its methods may be called from any thread."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._state = "active"
        self.started_usec = 0
        """When it started the broker, in microseconds since 1970."""
        self.asked = 0
        """The number of queries for the unit's state."""
        self.subscriptions = 0
        self._subscribers: set[str] = set()
        self._bus: Any = self._run(self._serve(address))

    async def _serve(self, address: str) -> Any:
        bus: Any = await MessageBus(bus_address=address).connect()
        bus.add_message_handler(self._answer)
        await bus.request_name(NAME)
        return bus

    def _answer(self, call: Message) -> Message | None:
        if call.message_type is not MessageType.METHOD_CALL:
            return None
        if (call.path, call.member) == ("/org/freedesktop/systemd1", "Subscribe"):
            self.subscriptions += 1
            if call.sender in self._subscribers:
                return Message.new_error(call, f"{NAME}.AlreadySubscribed", "Client is already subscribed.")
            self._subscribers.add(str(call.sender))
            return Message.new_method_return(call)
        if (call.path, call.member, call.body) == (UNIT_PATH, "Get", [UNIT, "ActiveState"]):
            self.asked += 1
            return Message.new_method_return(call, "v", [Variant("s", self._state)])
        if (call.path, call.member, call.body) == (UNIT_PATH, "Get", [SERVICE, "ExecMainStartTimestamp"]):
            return Message.new_method_return(call, "v", [Variant("t", self.started_usec)])
        return None

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def is_now(self, state: str, *, tell: bool = True) -> None:
        """Change the unit's state; with `tell`, send the signal."""

        async def change() -> None:
            self._state = state
            if tell:
                changed = [UNIT, {"ActiveState": Variant("s", state)}, []]
                await self._bus.send(
                    Message.new_signal(UNIT_PATH, PROPERTIES, "PropertiesChanged", "sa{sv}as", changed)
                )

        self._run(change())

    def leave(self) -> None:
        """Leave the bus for a moment, as systemd does when it re-executes itself."""
        self._run(self._bus.release_name(NAME))

    def come_back(self) -> None:
        """Return to the bus. Keeps its subscribers, as systemd does."""
        self._run(self._bus.request_name(NAME))

    def stop(self) -> None:
        self._run(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _disconnect(self) -> None:
        self._bus.disconnect()
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()
        self._bus._stream.close()  # dbus-next does not
        self._bus._sock.close()


@contextlib.contextmanager
def systemd1(address: str) -> Iterator[Systemd1]:
    peer = Systemd1(address)
    try:
        yield peer
    finally:
        peer.stop()
