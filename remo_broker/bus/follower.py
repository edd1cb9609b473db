"""Follows the broker on its status socket, and decides when to connect, because connecting starts the broker.

It connects:
- at its start, when nothing is known: this may wake the broker, and it brings the registrations;
- when the connection breaks, if systemd says that the broker runs or is starting: a crash, a restart;
- after an idle exit or a stop, once systemd says that the broker has been started;
- without systemd, again and again, ever more slowly: this wakes nothing.

No call on the bus leads to a connect, so `RETRY_SECONDS` bounds what all of them together can cost the broker.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, NoReturn

from remo_broker.bus.events import BadEvent, decode
from remo_broker.bus.snapshot import Draft
from remo_broker.bus.unit import State
from remo_broker.protocol.ops import MAX_MESSAGE, StoppingEvent, SyncedEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.bus.snapshot import Snapshot
    from remo_broker.bus.unit import BrokerUnit

# From a connect to the whole status: a broker that has to start first takes a tenth of a second. It also limits how long the
# last snapshot stands in for a broker that hangs.
SYNC_SECONDS = 5.0
# How long to wait before the next connect, doubled each time. systemd knows of a crash within the first of them.
RETRY_SECONDS = (0.1, 5.0)
# An idle broker has told us before it told systemd: so long its unit may still be "active". It counts only where systemd's
# clock does not show that another was started.
SETTLE_SECONDS = 5.0
# systemd announces a change of the unit. In case that is lost, ask this often.
RECHECK_SECONDS = 60.0

_WATCH = b'{"op":"watch"}\n'
_READ = 256 * 1024


class Ending(enum.Enum):
    """How following the broker came to an end."""

    IDLE = enum.auto()
    """It exits because it is idle."""
    STOPPED = enum.auto()
    """It was stopped."""
    LOST = enum.auto()
    """The connection broke."""
    ABSENT = enum.auto()
    """No process listens on the socket."""
    SILENT = enum.auto()
    """A process listens, but does not answer as a broker does."""


class Follower:
    """Calls `changed(old, new, replaced, why)` for every new snapshot: `old` is the last known one, `new` is None while
    the state is unknown, `replaced` as in `signals.differences`, `why` the reason for None."""

    def __init__(
        self,
        socket_path: str,
        unit: BrokerUnit,
        changed: Callable[[Snapshot | None, Snapshot | None, frozenset[str], str], None],
    ) -> None:
        self._socket_path = socket_path
        self._unit = unit
        self._changed = changed
        self._last: Snapshot | None = None
        self._synced = False
        self._why = ""
        self.settled = asyncio.Event()
        """Set once the first connection has brought a snapshot or failed."""

    async def run(self) -> NoReturn:
        """Follow the broker forever."""
        await self._unit.state()  # whether there is a systemd must be known before it leaves the bus for a moment
        wait = RETRY_SECONDS[0]
        while True:
            ending = await self._follow()
            if self._synced:
                wait = RETRY_SECONDS[0]
            await self._until_worthwhile(ending, wait)
            wait = min(wait * 2, RETRY_SECONDS[1])

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _follow(self) -> Ending:
        """One connection to the socket, from connect to EOF."""
        self._synced = False
        try:
            async with asyncio.timeout(SYNC_SECONDS) as deadline:
                reader, writer = await asyncio.open_unix_connection(self._socket_path, limit=_READ)
                try:
                    writer.write(_WATCH)
                    return await self._listen(reader, deadline)
                finally:
                    writer.transport.abort()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            return self._failed(Ending.ABSENT, str(error))
        except TimeoutError:
            return self._failed(Ending.SILENT, f"no status in {SYNC_SECONDS:g} s")
        except (OSError, BadEvent, ValueError) as error:
            return self._failed(Ending.SILENT, str(error))

    async def _listen(self, reader: asyncio.StreamReader, deadline: asyncio.Timeout) -> Ending:
        """Publish snapshots from the `synced` event on, which lifts the deadline."""
        draft, rest = Draft(), b""
        while chunk := await reader.read(_READ):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_MESSAGE:
                raise BadEvent("a line that is too long")
            events = [decode(line) for line in lines]
            draft.take(events)
            if any(isinstance(event, SyncedEvent) for event in events):
                self._synced = True
                deadline.reschedule(None)
            if self._synced:
                self._publish(draft)
                draft = Draft(self._last)
            for event in events:
                if isinstance(event, StoppingEvent):
                    return Ending.IDLE if event.idle else Ending.STOPPED
        return self._failed(Ending.LOST if self._synced else Ending.SILENT, "the connection was closed")

    def _failed(self, ending: Ending, why: str) -> Ending:
        self._why = f"{self._socket_path}: {why}"
        return ending

    def _publish(self, draft: Draft) -> None:
        new = draft.finish()
        replaced = frozenset(draft.replaced)
        old, self._last = self._last, new
        self._changed(old, new, replaced, "")
        self.settled.set()

    # --- between connections -----------------------------------------------------------------------------------------

    async def _until_worthwhile(self, ending: Ending, wait: float) -> None:
        """Return when it is time to connect again. Until then publish what is known of the broker."""
        if self._last is None:
            self._unknown()
            await asyncio.sleep(wait)
            return
        ended = ending in {Ending.IDLE, Ending.STOPPED}
        began = self._last.broker.start_usec
        if ended:
            self._stopped()
        loop = asyncio.get_running_loop()
        settled_at = loop.time() + (SETTLE_SECONDS if ended else 0)
        await asyncio.sleep(wait)
        while True:
            state = await self._unit.state()
            self._tell(ending, state)
            if state is State.DOWN:
                settled_at = 0.0  # what is up from now on is another
            if state in {State.DOWN, State.UNANSWERED}:
                await self._unit.changed(RECHECK_SECONDS)
            elif state is State.UP and loop.time() < settled_at and not await self._is_another(began):
                await self._unit.changed(settled_at - loop.time())
            else:
                return

    async def _is_another(self, began: int) -> bool:
        """Whether the running broker is another than the one that started at `began`: a restart takes only a moment."""
        return began > 0 and await self._unit.started_after(began)

    def _tell(self, ending: Ending, state: State) -> None:
        """Publish what is known of a broker without a connection, from how that ended and what systemd says."""
        nobody = state is State.NO_SYSTEMD and ending is Ending.ABSENT
        if nobody or state in {State.DOWN, State.STARTING}:
            self._stopped()
        elif ending in {Ending.ABSENT, Ending.SILENT} or (ending is Ending.LOST and state is State.UNANSWERED):
            self._unknown()

    def _stopped(self) -> None:
        assert self._last is not None
        old, self._last = self._last, self._last.stopped()
        self._changed(old, self._last, frozenset(), "The broker does not run")

    def _unknown(self) -> None:
        self._changed(self._last, None, frozenset(), self._why)
        self.settled.set()
