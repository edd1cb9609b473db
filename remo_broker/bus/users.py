"""Each caller's user; asks the bus once for each connection.

Only the first call of a connection waits for the bus's reply, about 0.1 ms. The bus never reuses a
unique name, so the reply stays valid.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remo_broker.bus.connection import CallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remo_broker.bus.wire import Incoming

# The most calls that wait for the bus at a time, over all callers. The bus replies in order, so
# more wait only in a flood, whose calls are refused.
MAX_WAITING = 1024


class Users:
    """Each caller's user, by unique name.

    `ask(name)` returns the uid or raises CallError; `answer(call, uid)` runs as soon as the uid is
    known.
    """

    def __init__(self, ask: Callable[[str], Awaitable[int]], answer: Callable[[Incoming, int], None]) -> None:
        self._ask = ask
        self._answer = answer
        self._users: dict[str, int] = {}
        self._waiting: dict[str, list[Incoming]] = {}
        self._waiting_calls = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, call: Incoming) -> bool:
        """Reply to the call now or later, to each caller's calls in order.

        False if too many are waiting.
        """
        uid = self._users.get(call.sender)
        if uid is not None:
            self._answer(call, uid)
            return True
        if self._waiting_calls >= MAX_WAITING:
            return False
        self._waiting_calls += 1
        if call.sender in self._waiting:
            self._waiting[call.sender].append(call)
            return True
        self._waiting[call.sender] = [call]
        task = asyncio.get_running_loop().create_task(self._find_out(call.sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def settle(self) -> None:
        """Wait until every call received so far has its reply."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def forget(self, names: frozenset[str]) -> None:
        """Forget callers that have left the bus."""
        for name in names:
            self._users.pop(name, None)

    async def _find_out(self, name: str) -> None:
        uid = None
        try:
            uid = await self._ask(name)
        except CallError:
            pass  # the caller has left the bus, and needs no reply
        finally:
            calls = self._waiting.pop(name)
            self._waiting_calls -= len(calls)
        if uid is not None:
            self._users[name] = uid
            for call in calls:
                self._answer(call, uid)
