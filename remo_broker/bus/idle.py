"""When the service may go: nobody has called for a while, and nobody who ever called is still on the bus.

The bus does not say who listens for signals. But whoever shows the broker's status over time asks for it once and then
listens, so a caller that stays connected counts as watching. Pure listeners (`busctl monitor`) are not seen, by design of
D-Bus: for them the service can be told to stay (`--idle-exit-seconds 0`).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from remo_broker.bus.connection import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.bus.connection import Connection

# So long after the last call: a person who types several `busctl` commands meets one process, a script that polls every
# minute does not keep it.
IDLE_SECONDS = 45
# Callers beyond these are not remembered: a flood of them would be gone by the next look anyway.
MAX_CALLERS = 4096


class Callers:
    """Who has called, by unique name; the bus never gives one out twice."""

    def __init__(self) -> None:
        self._last_call = asyncio.get_running_loop().time()
        self._names: set[str] = set()

    def called(self, name: str, now: float) -> None:
        """`name` has called; `now` is the loop's time."""
        self._last_call = now
        if len(self._names) < MAX_CALLERS:
            self._names.add(name)

    async def until_idle(self, connection: Connection, seconds: float, worth_watching: Callable[[], bool]) -> None:
        """Return `seconds` from now without a call, unless there is something worth watching and a caller still there;
        then look again as much later. 0 seconds: never return."""
        loop = asyncio.get_running_loop()
        if not seconds:
            await loop.create_future()
        looked = loop.time()
        while True:
            quiet = max(looked, self._last_call) + seconds - loop.time()
            if quiet > 0:
                await asyncio.sleep(quiet)
                continue
            looked = loop.time()
            if not await self._watching(connection, worth_watching) and self._last_call < looked:
                return

    async def _watching(self, connection: Connection, worth_watching: Callable[[], bool]) -> bool:
        with contextlib.suppress(CallError):
            (names,) = await connection.ask_driver("ListNames", gives="as")
            self._names.intersection_update(names)
        return bool(self._names) and worth_watching()
