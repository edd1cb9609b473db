"""The fair queue: in which order waiting connections are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remo_broker.broker.sockets.fair_queue import FairQueue

if TYPE_CHECKING:
    from remo_broker.broker.loop import Loop


class NoReplies:
    """Stands in for the outbox."""

    def flush(self) -> None:
        pass


class Waiting:
    """A connection with `requests` left, of which it serves one a turn, after `waits` turns in
    which its project's share is used up."""

    def __init__(self, queue: FairQueue, served: list[str], name: str, *, requests: int = 1, waits: int = 0) -> None:
        self._queue = queue
        self._served = served
        self._name = name
        self._requests = requests
        self._waits = waits

    @property
    def has_to_wait(self) -> bool:
        self._waits -= 1
        return self._waits >= 0

    def go_on(self) -> None:
        self._served.append(self._name)
        self._requests -= 1
        if self._requests:
            self._queue.add(self)  # type: ignore[arg-type]


def test_a_connection_with_requests_left_queues_behind_one_that_had_to_wait(loop: Loop) -> None:
    served: list[str] = []
    queue = FairQueue(loop, NoReplies())  # type: ignore[arg-type]
    queue.add(Waiting(queue, served, "first", requests=2))  # type: ignore[arg-type]
    queue.add(Waiting(queue, served, "second", waits=1))  # type: ignore[arg-type]
    queue.end_turn()
    while queue.waiting:
        loop.turn()
    assert served == ["first", "second", "first"]
