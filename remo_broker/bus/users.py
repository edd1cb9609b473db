"""Which user each caller is, as the bus knows it, asked once for each connection.

A call waits until the bus has answered: some 0.1 ms, and only the first call of a connection. The bus
never reuses a unique name, so an answer stays true.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remo_broker.bus.connection import CallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remo_broker.bus.wire import Incoming

# Calls that may wait for the bus at one time, over all callers. The bus answers in its queue's order, so
# more than this waits only in a flood, whose calls are refused instead.
MAX_WAITING = 1024


class Users:
    """The user of each caller, by unique name. `ask(name)` returns the uid or raises CallError; `answer(call, uid)` is
    called as soon as the uid is known."""

    def __init__(self, ask: Callable[[str], Awaitable[int]], answer: Callable[[Incoming, int], None]) -> None:
        self._ask = ask
        self._answer = answer
        self._users: dict[str, int] = {}
        self._waiting: dict[str, list[Incoming]] = {}
        self._waiting_calls = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, call: Incoming) -> bool:
        """Answer the call now or later, calls of one caller in their order. False if too many calls wait."""
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
        """Wait until every call that has arrived so far is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def forget(self, names: frozenset[str]) -> None:
        """These callers have left the bus."""
        for name in names:
            self._users.pop(name, None)

    async def _find_out(self, name: str) -> None:
        uid = None
        try:
            uid = await self._ask(name)
        except CallError:
            pass  # the caller has left the bus, and nobody waits for an answer
        finally:
            calls = self._waiting.pop(name)
            self._waiting_calls -= len(calls)
        if uid is not None:
            self._users[name] = uid
            for call in calls:
                self._answer(call, uid)
