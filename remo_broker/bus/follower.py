"""Follows the broker on its status socket.

Decides when to connect, because connecting starts the broker.

It connects:
- at startup, when the state is unknown: this may start the broker, and brings the registrations;
- when the connection breaks and systemd says that the broker is up or starting: a crash or restart;
- after an idle exit or a stop, once systemd says that the broker has started;
- without systemd, repeatedly, with increasing delays: this starts nothing.

No call on the bus causes a connect, so `RETRY_SECONDS` bounds the cost of all calls to the broker.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, NoReturn

from remo_broker.bus.events import BadEvent, decode
from remo_broker.bus.snapshot import Draft
from remo_broker.bus.unit import State
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.replies import StoppingEvent, SyncedEvent
from remo_broker.protocol.shared_limits import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.bus.snapshot import StatusSnapshot
    from remo_broker.bus.unit import BrokerUnit

# From a connect to the complete status: a broker that must start first takes a tenth of a second.
# Also limits how long we keep showing the last snapshot of a broker that hangs.
SYNC_SECONDS = 5.0
# The first and the longest delay before a reconnect, doubled each time. systemd notices a crash
# within the first.
RETRY_SECONDS = (0.1, 5.0)
# An idle broker tells us before systemd notices its exit: its unit may still be "active" for this
# long. Ignored if systemd's start time shows a new process.
SETTLE_SECONDS = 5.0
# systemd announces changes of the unit. In case a signal is lost, ask this often.
RECHECK_SECONDS = 60.0

_WATCH = b'{"op":"watch"}\n'
_READ = 256 * 1024


class Ending(enum.Enum):
    """How a connection to the broker ended."""

    IDLE = enum.auto()
    """The broker exits because it is idle."""
    STOPPED = enum.auto()
    """The broker was stopped."""
    LOST = enum.auto()
    """The connection broke."""
    ABSENT = enum.auto()
    """No process listens on the socket."""
    SILENT = enum.auto()
    """A process listens, but does not reply as a broker does."""


class Follower:
    """Calls `changed(old, new, replaced, why)` for every new snapshot.

    `old` is the last known one; `new` is None while the state is unknown, and `why` is the reason;
    `replaced` is as in `signals.differences`.
    """

    def __init__(
        self,
        socket_path: str,
        unit: BrokerUnit,
        changed: Callable[[StatusSnapshot | None, StatusSnapshot | None, frozenset[str], str], None],
    ) -> None:
        self._socket_path = socket_path
        self._unit = unit
        self._changed = changed
        self._last: StatusSnapshot | None = None
        self._synced = False
        self._why = ""
        self.settled = asyncio.Event()
        """Set once the first connection has delivered a snapshot or failed."""

    async def run(self) -> NoReturn:
        """Follow the broker forever."""
        await self._unit.state()  # learn whether there is a systemd, before it may briefly leave
        wait = RETRY_SECONDS[0]
        while True:
            ending = await self._follow()
            if self._synced:
                wait = RETRY_SECONDS[0]
            await self._until_worthwhile(ending, wait)
            wait = min(wait * 2, RETRY_SECONDS[1])

    # --- one connection ---------------------------------------------------------------------------

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
        """Publish snapshots, from the `synced` event on. That event lifts the deadline."""
        draft, lines = Draft(), LineBuffer()
        while chunk := await reader.read(_READ):
            lines.feed(chunk)
            events = [decode(line) for line in iter(lines.next_line, None)]
            if len(lines) > MAX_MESSAGE:
                raise BadEvent(f"a line of more than {MAX_MESSAGE} bytes")
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

    # --- between connections ----------------------------------------------------------------------

    async def _until_worthwhile(self, ending: Ending, wait: float) -> None:
        """Return when it is time to reconnect. Until then, publish what is known of the broker."""
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
            self._publish_outage(ending, state)
            if state is State.DOWN:
                settled_at = 0.0  # a broker that is up from now on is a new process
            if state in {State.DOWN, State.UNANSWERED}:
                await self._unit.changed(RECHECK_SECONDS)
            elif state is State.UP and loop.time() < settled_at and not await self._is_another(began):
                await self._unit.changed(settled_at - loop.time())
            else:
                return

    async def _is_another(self, began: int) -> bool:
        """Whether the running broker is not the one that started at `began`: a restart is quick."""
        return began > 0 and await self._unit.started_after(began)

    def _publish_outage(self, ending: Ending, state: State) -> None:
        """Publish the disconnected broker's state, from how the connection ended and what systemd
        says.
        """
        nobody = state is State.NO_SYSTEMD and ending is Ending.ABSENT
        if nobody or state in {State.DOWN, State.STARTING}:
            self._stopped()
        elif ending in {Ending.ABSENT, Ending.SILENT} or (ending is Ending.LOST and state is State.UNANSWERED):
            self._unknown()

    def _stopped(self) -> None:
        assert self._last is not None
        old, self._last = self._last, self._last.stopped()
        self._changed(old, self._last, frozenset(), "The broker is not running")

    def _unknown(self) -> None:
        self._changed(self._last, None, frozenset(), self._why)
        self.settled.set()
