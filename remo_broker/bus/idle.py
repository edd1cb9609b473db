"""When the service may exit: no call has come for a while, and no caller is still on the bus.

The bus does not say who listens for signals. But a program that follows the broker's status asks
for it once and then listens, so a caller that stays connected counts as watching. D-Bus hides pure
listeners (`busctl monitor`): to keep the service up for them, use `--idle-exit-seconds 0`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from remo_broker.bus.connection import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.bus.connection import BusConnection

# Time from the last call to the exit: consecutive `busctl` commands of a user reach one process,
# and a script that polls every minute does not keep it running.
IDLE_SECONDS = 45
# With this many names, more than most buses have, remove those that have left the bus even while
# calls keep coming.
MANY_CALLERS = 1024
# At most this often: the bus has to list all its names each time.
LIST_SECONDS = 1.0
# Beyond this, calls of new names are refused until the next listing. Only a bus configured for it
# has more connections at a time, and fewer can be opened and closed between two listings.
MAX_CALLERS = 16 * 1024


class Callers:
    """The callers, by unique name; the bus never reuses one."""

    def __init__(self, gone: Callable[[frozenset[str]], None] = lambda _names: None) -> None:
        """Calls `gone` with names that have left the bus."""
        self._gone = gone
        self._last_call = asyncio.get_running_loop().time()
        self._names: set[str] = set()
        self._many = asyncio.Event()

    def called(self, name: str, now: float) -> bool:
        """Record a call of `name`; `now` is the loop's time.

        False if there is no room and the call must be repeated.
        """
        self._last_call = now
        if len(self._names) < MAX_CALLERS:
            self._names.add(name)
        if len(self._names) >= MANY_CALLERS:
            self._many.set()
        return name in self._names

    async def until_idle(self, connection: BusConnection, seconds: float, worth_watching: Callable[[], bool]) -> None:
        """Return after `seconds` without a call, unless there is something worth watching and a
        caller is still there; then check again after as long. 0 seconds: never return.
        """
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            quiet = max(looked, self._last_call) + seconds - loop.time() if seconds else None
            if quiet is None or quiet > 0:
                await self._sleep_and_prune(quiet, connection)
                continue
            looked = loop.time()
            await self._prune(connection)
            watched = bool(self._names) and worth_watching()
            if not watched and self._last_call < looked:
                return

    async def _sleep_and_prune(self, seconds: float | None, connection: BusConnection) -> None:
        """Wait this long (None: forever).

        If too many names accumulate, forget those that have left.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._many.wait()
            self._many.clear()
            await self._prune(connection)
            await asyncio.sleep(LIST_SECONDS)

    async def _prune(self, connection: BusConnection) -> None:
        before = frozenset(self._names)  # new callers while the bus replies are not in its list
        with contextlib.suppress(CallError):
            (names,) = await connection.ask_driver("ListNames", gives="as")
            left = before.difference(names)
            self._names -= left
            self._gone(left)
