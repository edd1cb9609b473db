"""Turns: one job at a time does something to one thing, the others in the order in which they came."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from remo_broker.broker.loop import Later, Loop


class Turns:
    """Whoever has begun must end, whatever happens in between."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[str, deque[Later]] = {}
        """By what is taken, those who wait for it."""

    def begin(self, key: str) -> Generator[Later | None, Any, None]:
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
        else:
            turn = self._loop.later()
            waiting.append(turn)
            yield turn

    def end(self, key: str) -> None:
        waiting = self._waiting[key]
        if waiting:
            waiting.popleft().set(None)
        else:
            del self._waiting[key]
