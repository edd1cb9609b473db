"""How the broker interprets its helper's answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import JournalTransport
from remo_broker.broker.audit.read_back import ReadBack
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.loop import Loop
from tests.support.native import Receiver

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


class TrailWithHelper:
    """A trail whose journal takes everything, and a helper with given answers."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.asked: list[bytes] = []
        self.told: list[str] = []
        self.receiver = Receiver(directory / "journal")
        self.transport = JournalTransport(str(directory / "journal"), str(directory), str(directory))
        self.trail = AuditTrail(self.transport, clock_usec=lambda: 1)
        self.loop = Loop(self._bug)
        self.path = str(directory / "helper")
        self.read_back = ReadBack(self.loop, self.trail, self.path, self.told.append)

    def _bug(self, error: BaseException) -> None:
        raise error

    def run(self, *answers: bytes, until: float = 0.5) -> None:
        """Give these answers, one a question, and let the loop run for a while."""
        with contextlib.ExitStack() as stack:
            if answers:
                listening = stack.enter_context(socket.socket(socket.AF_UNIX))
                listening.bind(self.path)
                listening.listen()
                listening.settimeout(until)
                thread = threading.Thread(target=self._help, args=(listening, answers))
                stack.callback(thread.join)
                thread.start()
            self.read_back.begin(strict=True)
            self.loop.after(until, self.loop.stop)
            self.loop.run()

    def _help(self, listening: socket.socket, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            with contextlib.suppress(TimeoutError):
                connection, _ = listening.accept()
                with connection:
                    self.asked.append(connection.recv(1000))
                    connection.sendall(answer)


@pytest.fixture
def scene(directory: pathlib.Path) -> Iterator[TrailWithHelper]:
    scene = TrailWithHelper(directory)
    yield scene
    scene.receiver.leave()
    if scene.transport._socket is not None:
        scene.transport._socket.close()
    scene.read_back._close()
    scene.loop.close()


def test_the_helper_is_asked_for_a_record_like_that_of_a_fetch(scene: TrailWithHelper) -> None:
    scene.run(b"stored\n")
    [probe] = scene.receiver.take()
    assert (probe["REMO_EVENT"], probe["PRIORITY"]) == ("audit.probe", "6")
    assert scene.asked == [f"{scene.trail.start_id} {probe['REMO_SERIAL']} \n".encode()]
    assert (scene.trail.stored, scene.trail.trouble) == (True, None)
    assert scene.told == []


def test_before_the_first_answer_nothing_counts_as_stored(scene: TrailWithHelper) -> None:
    scene.read_back.begin(strict=True)
    assert (scene.trail.stored, scene.trail.trouble) == (False, "unchecked")


def test_a_record_absent_twice_is_a_failure_and_once_is_not(scene: TrailWithHelper) -> None:
    scene.run(b"absent\n", b"absent\n")
    assert scene.trail.trouble == "not_stored"
    events = [(one["REMO_EVENT"], one.get("REMO_REASON")) for one in scene.receiver.take()]
    assert events == [("audit.probe", None), ("audit.probe", None), ("audit.degraded", "not_stored")]
    scene.trail.storage_found()
    assert [one["REMO_EVENT"] for one in scene.receiver.take()] == ["audit.recovered"]
    assert scene.trail.stored


def test_a_slow_journal_is_healthy(scene: TrailWithHelper) -> None:
    scene.run(b"absent\n", b"stored\n")
    assert scene.trail.trouble is None
    assert [one["REMO_EVENT"] for one in scene.receiver.take()] == ["audit.probe"] * 2


@pytest.mark.parametrize("answer", [b"unknown\n", b"", b"STORED", b"x" * 1000])
def test_an_unknown_result_is_reported_and_not_counted_as_a_failure(scene: TrailWithHelper, answer: bytes) -> None:
    scene.run(answer)
    assert scene.trail.trouble is None
    assert len(scene.told) == 1


def test_a_missing_helper_is_logged_once(scene: TrailWithHelper) -> None:
    scene.run()
    assert scene.trail.trouble is None
    assert len(scene.told) == 1
    assert scene.receiver.take() == []
