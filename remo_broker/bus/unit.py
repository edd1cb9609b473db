"""Asks systemd, on the same bus, whether the broker is running.

So we do not wake an idle broker, and notice its return.

A signal only prompts us to ask again. Any user can send one, so `changed` returns at most once in
`HINT_SECONDS`, and only systemd's reply counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import TYPE_CHECKING

from remo_broker.bus.connection import DRIVER, CallError
from remo_broker.bus.paths import escape_label

if TYPE_CHECKING:
    from remo_broker.bus.connection import BusConnection
    from remo_broker.bus.wire import Incoming

BROKER_UNIT = "remo-broker.service"
SYSTEMD = "org.freedesktop.systemd1"
SYSTEMD_PATH = "/org/freedesktop/systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"

# A start causes a burst of changes, and systemd has to reply to each query.
HINT_SECONDS = 0.1

_UNIT_PATH = f"{SYSTEMD_PATH}/unit/{escape_label(BROKER_UNIT)}"
_RULES = (
    f"type='signal',sender='{SYSTEMD}',path='{_UNIT_PATH}',interface='{PROPERTIES}',member='PropertiesChanged'",
    # With `systemctl daemon-reexec`, systemd leaves the bus, returns, and may have lost its
    # subscribers.
    f"type='signal',sender='{DRIVER}',interface='{DRIVER}',member='NameOwnerChanged',arg0='{SYSTEMD}'",
)
_NOBODY = frozenset({"org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.ServiceUnknown"})
# systemd's error if it has kept the subscription.
_ALREADY_SUBSCRIBED = f"{SYSTEMD}.AlreadySubscribed"


class State(enum.Enum):
    """The unit's ActiveState, reduced to what matters here."""

    UP = enum.auto()
    STARTING = enum.auto()
    """It is starting on its own; the previous process has exited."""
    DOWN = enum.auto()
    UNANSWERED = enum.auto()
    """systemd did not reply."""
    NO_SYSTEMD = enum.auto()
    """systemd has never been on this bus."""


_STATES = {"active": State.UP, "reloading": State.UP, "refreshing": State.UP, "activating": State.STARTING}


class BrokerUnit:
    """The broker's unit, as systemd reports it."""

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection
        self._hint = asyncio.Event()
        self._listening = False
        self._subscribed = False
        self._met = False
        """Whether systemd has been on this bus: if so, and it is absent, it will return."""

    async def state(self) -> State:
        """The unit's current state."""
        try:
            await self._subscribe()
            state = await self._get("Unit", "ActiveState")
        except CallError as error:
            return State.UNANSWERED if self._met or str(error) not in _NOBODY else State.NO_SYSTEMD
        self._met = True
        return _STATES.get(str(state), State.DOWN)

    async def started_after(self, usec: int) -> bool:
        """Whether its process started after `usec`, in microseconds since 1970.

        False if unknown.
        """
        try:
            started = await self._get("Service", "ExecMainStartTimestamp")
        except CallError:
            return False
        return isinstance(started, int) and started > usec

    def on_signal(self, signal: Incoming) -> None:
        """Handle a signal from any sender."""
        if signal.member == "NameOwnerChanged" and signal.sender == DRIVER:
            self._subscribed = False
            self._met = True
        self._hint.set()

    async def changed(self, seconds: float) -> None:
        """Wait until the unit's state may have changed, or for this many seconds."""
        await asyncio.sleep(HINT_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        self._hint.clear()

    async def _get(self, interface: str, name: str) -> object:
        (value,) = await self._connection.call(
            SYSTEMD, _UNIT_PATH, PROPERTIES, "Get", "ss", f"{SYSTEMD}.{interface}", name, gives="v"
        )
        return value.value

    async def _subscribe(self) -> None:
        if not self._listening:
            for rule in _RULES:
                await self._connection.ask_driver("AddMatch", "s", rule)
            self._listening = True
        if not self._subscribed:
            try:
                await self._connection.call(SYSTEMD, SYSTEMD_PATH, f"{SYSTEMD}.Manager", "Subscribe")
            except CallError as error:
                if str(error) != _ALREADY_SUBSCRIBED:
                    raise
            self._subscribed = True
