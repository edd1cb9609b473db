"""When the broker tries again to save that projects were unregistered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker import unsaved
from remo_broker.broker.loop import KeyLocks, Loop
from remo_broker.broker.manifest_operations import CHANGES
from remo_broker.broker.refusals import Refused
from remo_broker.broker.unsaved import Unsaved
from remo_broker.protocol.codes import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from remo_broker.broker.loop import Job, Later, Timer

NAMES = ("a", "b", "c")


class Disk(Loop):
    """A loop that counts its timers, and a disk that is full until it has been tried `full`
    times."""

    def __init__(self, full: int) -> None:
        self.bugs: list[BaseException] = []
        super().__init__(self.bugs.append)
        self.full = full
        self.tries = self.timers = 0
        self.locks = KeyLocks(self)
        self.unsaved = Unsaved(self, self.locks, self.save)
        self.said: list[str] = []

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers += 1
        return super().after(seconds, callback)

    def save(self) -> Generator[Later | None, Any, None]:
        yield None
        self.tries += 1
        if self.tries <= self.full:
            raise Refused(Code.INTERNAL_ERROR, None, "No space left on device")
        self.unsaved.clear()

    def unregister(self, *names: str) -> None:
        for name in names:
            self.unsaved.add(name)
            self.unsaved.save_later()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(unsaved, "AGAIN_SECONDS", 0.01)
    disk = Disk(full=3)
    yield disk
    disk.close()
    assert disk.bugs == []


def test_it_tries_once_at_a_time_however_many_projects_there_are(disk: Disk) -> None:
    disk.unregister(*NAMES)
    while disk.unsaved:
        disk.turn()
    assert (disk.tries, disk.timers) == (4, 4)


def test_another_save_leaves_nothing_to_try(disk: Disk) -> None:
    disk.unregister(*NAMES)
    disk.unsaved.clear()
    disk.turn()
    disk.turn()
    assert (disk.tries, disk.timers) == (0, 1)


def test_before_the_exit_it_tries_once_more(disk: Disk) -> None:
    """However short a time ago it did, and after what is being saved."""
    disk.full = 0
    disk.unregister(*NAMES)

    def changes() -> Job:
        yield from disk.locks.acquire(CHANGES)
        for _ in range(3):
            yield None
        assert disk.tries == 0
        disk.locks.release(CHANGES)

    disk.start(changes())
    disk.unsaved.save_before_exit(disk.said.append)
    while disk.unsaved.busy:
        disk.turn()
    assert (disk.tries, set(disk.unsaved), disk.said) == (1, set(), [])


def test_what_could_not_be_saved_before_the_exit_is_said(disk: Disk) -> None:
    disk.unregister("b", "a")
    disk.unsaved.save_before_exit(disk.said.append)
    while disk.unsaved.busy:
        disk.turn()
    (said,) = disk.said
    assert "a, b" in said
    assert "No space left" in said


def test_nothing_to_save_delays_no_exit(disk: Disk) -> None:
    disk.unsaved.save_before_exit(disk.said.append)
    assert (disk.unsaved.busy, disk.tries) == (False, 0)
