"""A client that disconnects during a push or a reply leaves no copy."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.connection import PEER_SECONDS, SWEEP_SECONDS
from tests.process.memory.traces import assert_one_copy_each
from tests.support.broker import WAIT_SECONDS, Broker, Link
from tests.support.machine import poll
from tests.support.scanner import Findings, make_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Callable


def is_stuck(broker: Broker) -> bool:
    """Whether the project's client accepts no more replies: each status takes a turn of the loop,
    in which it would have received some."""
    counts = {broker.status()["projects"][0]["fetches_allowed"] for _ in range(5)}
    return len(counts) == 1 and counts != {0}


@pytest.mark.parametrize("end", ["close", "half-close", "silence", "silence behind a request"])
def test_vanished_in_mid_push(fallback: Broker, look: Callable[[list[str | bytes]], Findings], end: str) -> None:
    secrets = make_secrets(200, end)
    line = secrets.line()
    with Link(fallback.admin) as link:
        before = b'{"op":"status"}\n' if end == "silence behind a request" else b""
        link.send(before + line[: len(line) * 2 // 3])
        if before:
            assert link.reply()["ok"]
        poll("the push to arrive", lambda: look(secrets.values).hits)
        if end == "close":
            link.close()
        elif end == "half-close":
            link.say_no_more()
            assert link.reply()["code"] == "protocol_error"
        else:
            assert link.reply()["reason"] == "too_slow"
        poll("the memory to be overwritten", lambda: not look(secrets.values).hits)
    assert fallback.status()["secret_count"] == 0


def test_vanished_in_mid_answer(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """For a client that stops reading, the reply being sent is kept for `PEER_SECONDS`, and nothing
    else."""
    random_ = random.Random("reader")
    values: list[str | bytes] = [plain(random_, 4000) for _ in range(8)]
    push = {"op": "push-creds", "secrets": {f"S{number}": value for number, value in enumerate(values)}}
    assert fallback.ask(push)["ok"]
    with Link(fallback.project()) as stuck, Link(fallback.project()) as fine:
        stuck.send(b"".join(b'{"op":"get","name":"S%d"}\n' % (number % 8) for number in range(400)))
        poll("the reader to be stuck", lambda: is_stuck(fallback))
        assert fine.ask({"op": "get", "name": "S0"})["value"] == values[0]
        assert fallback.ask({"op": "clear-creds"})["ok"]
        assert fine.ask({"op": "get", "name": "S0"})["reason"] == "no_snapshot"
        assert_one_copy_each(look(values), len(values))
        poll("the memory to be overwritten", lambda: not look(values).hits, PEER_SECONDS + SWEEP_SECONDS + WAIT_SECONDS)


def test_reader_that_leaves_in_mid_answer(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    random_ = random.Random("leaver")
    values: list[str | bytes] = [plain(random_, 4000)]
    assert fallback.ask({"op": "push-creds", "secrets": {"S0": values[0]}})["ok"]
    stuck = Link(fallback.project())
    stuck.send(b'{"op":"get","name":"S0"}\n' * 400)
    poll("the reader to be stuck", lambda: is_stuck(fallback))
    assert fallback.ask({"op": "clear-creds"})["ok"]
    assert_one_copy_each(look(values), 1)
    stuck.close()
    poll("the memory to be overwritten", lambda: not look(values).hits)


def test_reader_that_catches_up(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """It is answered from the snapshot that its reply began with, which is freed afterwards."""
    random_ = random.Random("late")
    values: list[str | bytes] = [plain(random_, 4000)]
    assert fallback.ask({"op": "push-creds", "secrets": {"S0": values[0]}})["ok"]
    with Link(fallback.project()) as late:
        late.send(b'{"op":"get","name":"S0"}\n' * 100)
        poll("the reader to be stuck", lambda: is_stuck(fallback))
        assert fallback.ask({"op": "clear-creds"})["ok"]
        assert_one_copy_each(look(values), 1)
        answers = [late.reply() for _ in range(100)]
        served = [answer for answer in answers if answer["ok"]]
        assert len(served) > 10
        assert all(answer["value"] == values[0] for answer in served)
        poll("the memory to be overwritten", lambda: not look(values).hits)
        assert late.ask({"op": "ping"})["ok"]
