"""`audit --mark-new` marks each first fetch once, whatever happens to the clock between two runs."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from remo_broker.ctl import audit_mark_new
from remo_broker.ctl.audit_mark_new import FIRST_RUN_SECONDS, OVERLAP_SECONDS, mark
from remo_broker.ctl.audit_reader import Query
from tests.process.ctl.test_audit_directory import REMOTE, SECOND, USEC, Gathered, fetch
from tests.support.machine import unavailable
from tests.support.native import Receiver

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

HOUR = 3600 * SECOND


class Timer:
    """Runs it on a host's journal, with a clock that the test sets."""

    def __init__(self, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = USEC
        self._journal = Gathered(directory / "journal")
        self._journal.directory.mkdir()
        self._serial = 0
        self._receiver = Receiver(directory / "socket")
        self.state = directory / "state"
        self.state.mkdir()
        monkeypatch.setenv("STATE_DIRECTORY", str(self.state))
        monkeypatch.setattr(audit_mark_new, "JOURNAL_SOCKET", str(directory / "socket"))
        monkeypatch.setattr(audit_mark_new, "now_usec", lambda: self.now)

    def fetch(self, secret: str) -> None:
        """A program's first fetch of `secret`, now."""
        self._serial += 1
        self._journal.host("alpha", (self.now, fetch(self._serial, secret)))

    def run(self) -> list[str]:
        """Which secrets it marks."""
        count = mark(Query(directory=str(self._journal.directory)))
        marked = [one["REMO_SECRET"] for one in self._receiver.take()]
        assert len(marked) == count
        return marked

    def close(self) -> None:
        self._receiver.leave()


@pytest.fixture
def timer(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Timer]:
    if not os.path.exists(REMOTE):
        unavailable("systemd-journal-remote is not installed: ./run test installs it")
    with contextlib.closing(Timer(directory, monkeypatch)) as timer:
        yield timer


def test_each_first_fetch_is_marked_once(timer: Timer) -> None:
    timer.fetch("A")
    assert timer.run() == ["A"]
    timer.now += SECOND
    timer.fetch("B")
    timer.fetch("B")
    assert timer.run() == ["B"]
    timer.now += HOUR
    assert timer.run() == []


@pytest.mark.parametrize("ahead", [OVERLAP_SECONDS // 2 * SECOND, 3 * HOUR, 10_000 * HOUR])
def test_a_first_fetch_after_the_clock_was_set_back_is_marked(timer: Timer, ahead: int) -> None:
    timer.now += ahead
    timer.fetch("A")
    assert timer.run() == ["A"]
    timer.now += SECOND
    timer.fetch("B")
    timer.now -= ahead
    timer.fetch("C")
    timer.now += SECOND
    assert sorted(timer.run()) == ["B", "C"]
    timer.now += SECOND
    timer.fetch("D")
    assert timer.run() == ["D"]
    assert timer.run() == []
    timer.now += ahead  # it is as late again
    timer.fetch("E")
    assert timer.run() == ["E"]


@pytest.mark.parametrize("text", ["", "x", "9" * 30, "-1", "12\nx y\n"])
def test_a_file_that_is_not_its_own_counts_as_none(timer: Timer, text: str) -> None:
    timer.now -= 2 * FIRST_RUN_SECONDS * SECOND
    timer.fetch("OLD")
    timer.now += 2 * FIRST_RUN_SECONDS * SECOND
    timer.fetch("A")
    (timer.state / "since").write_text(text)
    assert timer.run() == ["A"]
