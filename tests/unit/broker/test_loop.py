"""The event loop on real descriptors."""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker.loop import READ, READ_ONCE, Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remo_broker.broker.loop import Job


class RecordingLoop(Loop):
    """A loop that records the bugs reported to it."""

    def __init__(self) -> None:
        self.bugs: list[BaseException] = []
        super().__init__(self.bugs.append)


@pytest.fixture
def loop() -> Iterator[RecordingLoop]:
    loop = RecordingLoop()
    yield loop
    loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_ready_descriptor_is_handled_until_it_is_removed(loop: RecordingLoop, pipe: tuple[int, int]) -> None:
    handled: list[bytes] = []
    loop.watch(pipe[0], READ, lambda: handled.append(os.read(pipe[0], 1)))
    os.write(pipe[1], b"abc")
    loop.turn()
    loop.turn()
    assert handled == [b"a", b"b"]
    loop.forget(pipe[0])
    loop.forget(pipe[0])  # twice is fine
    loop.after(0, lambda: None)
    loop.turn()
    assert handled == [b"a", b"b"]


def test_without_wanted_events_none_is_handled(loop: RecordingLoop, pipe: tuple[int, int]) -> None:
    handled: list[bytes] = []
    loop.watch(pipe[0], READ, lambda: handled.append(os.read(pipe[0], 1)))
    os.write(pipe[1], b"a")
    loop.change(pipe[0], 0)
    loop.after(0, lambda: None)
    loop.turn()
    assert handled == []
    loop.change(pipe[0], READ)
    loop.turn()
    assert handled == [b"a"]


def test_timers_run_in_order_when_they_are_due(loop: RecordingLoop) -> None:
    ran: list[str] = []
    began = time.monotonic()
    loop.after(0.03, lambda: ran.append("later"))
    loop.after(0.01, lambda: ran.append("sooner"))
    never = loop.after(0.02, lambda: ran.append("never"))
    never.cancel()
    never.cancel()
    while len(ran) < 2:
        loop.turn()
    assert ran == ["sooner", "later"]
    assert time.monotonic() - began >= 0.03


def test_timers_run_beside_what_never_rests(loop: RecordingLoop, pipe: tuple[int, int]) -> None:
    def job() -> Job:
        while True:
            yield None

    loop.watch(pipe[0], READ, lambda: None)
    os.write(pipe[1], b"a")
    loop.start(job())
    ran: list[str] = []

    def again() -> None:
        loop.after(0.01, lambda: ran.append("second"))

    loop.after(0.005, lambda: ran.append("first")).cancel()
    loop.after(0.01, again)
    loop.after(0.03, lambda: ran.append("third"))
    while len(ran) < 2:
        loop.turn()
    assert sorted(ran) == ["second", "third"]  # the order is up to how busy the machine is


def test_jobs_take_turns_and_wait(loop: RecordingLoop) -> None:
    said: list[object] = []
    later, other = loop.later(), loop.later()

    def steps(name: str) -> Job:
        for number in range(2):
            said.append(f"{name}{number}")
            yield None

    def waits() -> Job:
        said.append((yield later))
        said.append((yield other))

    loop.start(waits())
    loop.start(steps("a"))
    loop.start(steps("b"))
    for _ in range(3):
        loop.turn()
    assert said == ["a0", "b0", "a1", "b1"]
    later.set("result")
    later.set("too late")
    loop.turn()
    other.set("another")
    loop.turn()
    assert said[4:] == ["result", "another"]


def test_a_finished_operation_is_not_waited_for(loop: RecordingLoop) -> None:
    later = loop.later()
    later.set(5)
    got: list[object] = []

    def job() -> Job:
        got.append((yield later))

    loop.start(job())
    loop.turn()
    loop.turn()
    assert got == [5]


def test_a_handler_that_raises_does_not_stop_the_others(loop: RecordingLoop, pipe: tuple[int, int]) -> None:
    ran: list[str] = []

    def wrong() -> None:
        raise ZeroDivisionError

    def wrong_job() -> Job:
        yield None
        raise ZeroDivisionError

    def right_job() -> Job:
        yield None
        ran.append("job")

    loop.watch(pipe[0], READ, wrong)
    os.write(pipe[1], b"a")
    loop.turn_ends += [wrong, lambda: ran.append("end")]
    loop.start(wrong_job())
    loop.start(right_job())
    loop.after(0, wrong)
    loop.after(0, lambda: ran.append("timer"))
    while not {"job", "end", "timer"} <= set(ran):
        loop.turn()
    assert len(loop.bugs) >= 4
    assert all(isinstance(bug, ZeroDivisionError) for bug in loop.bugs)


def test_stop_takes_effect_at_the_end_of_the_turn(loop: RecordingLoop) -> None:
    loop.after(0, loop.stop)
    loop.run()


class FullEpoll:
    """The kernel's epoll(7), which registers as many descriptors as it has room for."""

    def __init__(self, epoll: select.epoll) -> None:
        self.room = 0
        self._epoll = epoll

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def register(self, descriptor: int, events: int) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        self._epoll.register(descriptor, events)


@pytest.fixture
def full(loop: RecordingLoop) -> FullEpoll:
    full = FullEpoll(loop._epoll)
    loop._epoll = full  # type: ignore[assignment]
    return full


def test_what_epoll_has_no_room_for_is_looked_at(loop: RecordingLoop, full: FullEpoll, pipe: tuple[int, int]) -> None:
    """Root of a container may be the broker's user, and use up what the kernel grants that."""
    handled: list[bytes] = []
    loop.watch(pipe[0], READ, lambda: handled.append(os.read(pipe[0], 1)))
    os.write(pipe[1], b"abcd")
    loop.turn()
    loop.turn()
    assert handled == [b"a", b"b"]
    loop.change(pipe[0], 0)
    loop.turn()
    assert handled == [b"a", b"b"]
    loop.change(pipe[0], READ)
    loop.turn()
    assert handled == [b"a", b"b", b"c"]
    loop.forget(pipe[0])
    loop.turn()
    assert handled == [b"a", b"b", b"c"]
    assert loop.bugs == []


def test_one_event_is_handled_once_without_room(loop: RecordingLoop, full: FullEpoll, pipe: tuple[int, int]) -> None:
    """Also if there is room after that."""
    handled: list[int] = []
    loop.watch(pipe[0], READ_ONCE, lambda: handled.append(pipe[0]))
    os.write(pipe[1], b"a")
    for full.room in (0, 0, 1, 1):
        loop.after(0, lambda: None)
        loop.turn()
        assert handled == [pipe[0]]
    loop.change(pipe[0], READ_ONCE)
    loop.turn()  # registers it
    loop.turn()
    assert handled == [pipe[0]] * 2
    loop.forget_inert(pipe[0])
    assert loop.bugs == []


@pytest.mark.parametrize("wait", [READ, READ_ONCE])
def test_with_room_again_epoll_watches_it(
    loop: RecordingLoop, full: FullEpoll, pipe: tuple[int, int], wait: int
) -> None:
    handled: list[bytes] = []
    loop.watch(pipe[0], wait, lambda: handled.append(os.read(pipe[0], 1)))
    loop.turn()
    full.room = 1
    loop.turn()
    os.write(pipe[1], b"a")
    assert full.poll(0) == [(pipe[0], READ)]
    assert (handled, full.room) == ([], 0)
    loop.change(pipe[0], wait)
    loop.turn()
    assert handled == [b"a"]
    loop.forget(pipe[0])
    loop.watch(pipe[0], READ, lambda: None)  # not twice
    assert loop.bugs == []
