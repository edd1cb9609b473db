"""A start that ends while records wait loses them, and no later record of its own shows a gap. So the
next start says so."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, Link, registration
from tests.support.machine import poll
from tests.support.stderr_pipe import Pipe

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

GET = b'{"op":"get","name":"A"}\n'


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    pipe.flow()
    try:
        yield pipe
    finally:
        pipe.close()


def serial_before(directory: pathlib.Path) -> str | None:
    """What a new start says of the one before it."""
    broker = Broker(directory)
    with contextlib.closing(broker):
        broker.start()
        broker.status()  # it listens before it records its start
        [started] = broker.records("broker.started")[-1:]
    return started.get("REMO_PREVIOUS_SERIAL")


@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_start_names_a_serial_of_the_one_before_whose_records_waited(
    pipe: Pipe, directory: pathlib.Path, end: str, earlier: bool
) -> None:
    broker = Broker(directory, projects=[registration("myrepo", "A")], stderr=pipe.write_end, rate_limit_per_second=0)
    with contextlib.closing(broker):
        broker.start()
        broker.push({"A": "a"})
        with Link(broker.project()) as client:
            if earlier:  # records waited, and were accepted then
                pipe.stop()
                assert client.ask(GET)["value"] == "a"
                pipe.flow()
                poll("the records", lambda: pipe.records("audit.recovered"))
            pipe.stop()
            assert client.ask(GET)["value"] == "a"
            # From the reply on.
            if end == "kill":
                broker.process.kill()
                broker.process.wait()
    if end == "stop":
        broker.stop()
    pipe.flow()
    last = max(int(one["REMO_SERIAL"]) for one in pipe.records() if "REMO_SERIAL" in one)
    waiting = serial_before(directory)
    assert waiting is not None
    assert int(waiting) > last
    assert serial_before(directory) is None


def test_a_start_whose_records_were_all_accepted_ended_without_a_loss(pipe: Pipe, directory: pathlib.Path) -> None:
    broker = Broker(directory, projects=[registration("myrepo", "A")], stderr=pipe.write_end)
    with contextlib.closing(broker):
        broker.start()
        pipe.stop()
        broker.get("A")
        pipe.flow()
        poll("the records", lambda: pipe.records("audit.recovered"))
        poll("health", lambda: broker.status()["audit"]["healthy"])
        broker.process.kill()
        broker.process.wait()
    assert serial_before(directory) is None


def test_a_start_whose_records_waited_from_before_its_first_on_is_named(pipe: Pipe, directory: pathlib.Path) -> None:
    """A log line, here about registrations that cannot be read, may come first."""
    (directory / "state").mkdir(mode=0o700)
    (directory / "state/registrations.json").write_text("damaged")
    pipe.stop()
    broker = Broker(directory, stderr=pipe.write_end)
    with contextlib.closing(broker):
        broker.start()
        assert not broker.status()["audit"]["healthy"]
        broker.process.kill()
        broker.process.wait()
    assert serial_before(directory) is not None
