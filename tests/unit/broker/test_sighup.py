"""Which manifests SIGHUP reads again, and when it retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker import sighup
from remo_broker.broker.loop import Loop
from remo_broker.broker.manifest_child import NotRead
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sighup import RETRY_SECONDS, Reloads
from remo_broker.protocol.codes import Code

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from remo_broker.broker.loop import Later


class Reading:
    """Two projects; `fails` has the errors of the next readings of `busy`."""

    def __init__(self) -> None:
        self.loop = Loop(self.bug)
        self.read: list[str] = []
        self.said: list[str] = []
        self.fails: list[Exception] = []
        self.projects = {"busy": 1, "other": 2}
        self.reloads = Reloads(
            self.loop, self.projects, self.adopt, lambda: self.say("begins"), lambda: self.say("ended"), self.say
        )

    def bug(self, error: BaseException) -> None:
        self.say(f"bug: {error}")

    def say(self, text: str) -> None:
        self.said.append(text)

    def adopt(self, name: str, _peer: object) -> Generator[Later | None, Any, None]:
        yield None
        self.read.append(name)
        if name == "busy" and self.fails:
            raise self.fails.pop(0)

    def run(self) -> list[str]:
        """Run until nothing is left to do; return the projects that were read."""
        while self.reloads.busy:
            self.loop.turn()
        return self.read


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reading]:
    monkeypatch.setattr(sighup, "RETRY_SECONDS", (0.01, 0.02))
    reading = Reading()
    yield reading
    reading.loop.close()


def test_a_manifest_not_read_in_time_is_read_again(reading: Reading) -> None:
    """Names that a project has removed would otherwise stay allowed on a busy host."""
    reading.fails = [NotRead("late")]
    reading.reloads.all()
    assert reading.run() == ["busy", "other", "busy"]
    begins, note, ended = reading.said
    assert (begins, ended) == ("begins", "ended")
    assert "again in 0.01 s" in note


def test_a_manifest_never_read_in_time_is_given_up(reading: Reading) -> None:
    reading.fails = [NotRead("late")] * 100
    reading.reloads.all()
    assert reading.run() == ["busy", "other", "busy", "busy"]
    assert "again" not in reading.said[-1]
    assert len(RETRY_SECONDS) > 1


@pytest.mark.parametrize("error", [Refused(Code.MANIFEST_INVALID, None, "allowlist: x"), ZeroDivisionError("x")])
def test_a_manifest_with_a_result_is_not_read_again(reading: Reading, error: Exception) -> None:
    reading.fails = [error]
    reading.reloads.all()
    assert reading.run() == ["busy", "other"]


def test_another_signal_replaces_a_pending_retry(reading: Reading) -> None:
    reading.fails = [NotRead("late"), NotRead("late")]
    reading.reloads.all()
    while "ended" not in reading.said:
        reading.loop.turn()
    reading.reloads.all()
    assert reading.run() == ["busy", "other", "busy", "other", "busy"]


def test_an_unregistered_project_is_not_read_again(reading: Reading) -> None:
    reading.fails = [NotRead("late")]
    reading.reloads.all()
    while "ended" not in reading.said:
        reading.loop.turn()
    del reading.projects["busy"]
    assert reading.run() == ["busy", "other"]
