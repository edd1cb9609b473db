"""Named limits bound what clients can make the broker hold; reaching them affects no other
client."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.listener import MAX_OVERFLOW
from remo_broker.broker.sockets.project import MAX_UNREAD, READ_SIZE
from remo_broker.protocol.config import Config
from remo_broker.protocol.shared_limits import MAX_MESSAGE
from tests.support.broker import WAIT_SECONDS, Link, registration, settle
from tests.support.machine import poll
from tests.support.slow_descriptor import SlowDescriptor, require_refusal

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.broker import Reply

CONNECTIONS = Config().max_connections_per_project
# Measured while the broker is idle for a second.
MAX_IDLE_PROCESSOR_SHARE = 0.2


@pytest.fixture
def connections() -> Iterator[Connections]:
    with contextlib.ExitStack() as stack:
        yield Connections(stack)


class Connections:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def join(self, path: pathlib.Path, count: int) -> list[Link]:
        return [self._stack.enter_context(Link(path)) for _ in range(count)]


def test_unfinished_requests(start_broker: StartBroker, connections: Connections) -> None:
    """A project's connections keep `MAX_UNREAD` together; one that sends more is refused, and the
    others go on."""
    broker = start_broker(projects=[registration("noisy"), registration("quiet", "A")])
    links = connections.join(broker.project("noisy"), CONNECTIONS)
    before = broker.resident_kib()
    for link in links:
        link.send(b"x" * (MAX_MESSAGE - 1))
        link.socket.setblocking(False)
    told: dict[Link, Reply] = {}

    def tally() -> bool:
        for link in links:
            if link not in told:
                with contextlib.suppress(BlockingIOError):
                    told[link] = link.reply()
        return len(told) >= CONNECTIONS - MAX_UNREAD // MAX_MESSAGE - 1

    poll("those who are too many to be told", tally)
    assert {(one["code"], one["reason"]) for one in told.values()} == {("rate_limited", "too_many_requests")}
    assert len(told) < CONNECTIONS
    # What is kept, what one read of each may add, and room for their objects.
    assert (broker.resident_kib() - before) * 1024 <= MAX_UNREAD + CONNECTIONS * (READ_SIZE + 4096)
    with Link(broker.project("quiet")) as link:
        assert link.ask({"op": "ping"})["ok"]


def test_unread_replies(start_broker: StartBroker, connections: Connections) -> None:
    """The longest values and the longest `info`, requested as often as the burst allows, are not
    copied."""
    names = tuple(f"{number:0128}" for number in range(490))
    broker = start_broker(projects=[registration("noisy", "A", *names)])
    broker.push({"A": "x" * 65_000})
    with Link(broker.project("noisy")) as link:
        link.ask({"op": "info"})
    before = broker.resident_kib()
    links = connections.join(broker.project("noisy"), 100)
    for link in links:
        link.send(b'{"op":"info"}\n{"op":"get","name":"A"}\n' * 5)
    poll("them to be answered", lambda: broker.status()["fetches_allowed"] >= 400)
    # 1,000 answers of 64 KiB would be 62 MiB.
    assert broker.resident_kib() - before <= 2 * 1024


def test_connections(start_broker: StartBroker, connections: Connections) -> None:
    """Beyond a project's limit a connection is refused with a reply, far beyond it closed without
    one."""
    broker = start_broker(projects=[registration("noisy"), registration("quiet")])
    links = connections.join(broker.project("noisy"), CONNECTIONS)
    assert links[-1].ask({"op": "ping"})["ok"]
    descriptors = broker.descriptors()
    broker.signal(signal.SIGSTOP)  # else it may refuse each with a reply as fast as they arrive
    more = connections.join(broker.project("noisy"), 10 * MAX_OVERFLOW)
    broker.signal(signal.SIGCONT)
    assert more[0].reply()["reason"] == "too_many_connections"
    assert broker.descriptors() <= descriptors + MAX_OVERFLOW + 1  # one is just being handled
    answers = [link.rest() for link in more[1:]]
    assert len([one for one in answers if one]) < 2 * MAX_OVERFLOW
    assert all(json.loads(one)["code"] == "rate_limited" for one in answers if one)
    with Link(broker.project("quiet")) as link:
        assert link.ask({"op": "ping"})["ok"]
    links[0].close()
    poll("a place to be free", lambda: _is_served(broker.project("noisy"), "ping"))


def test_out_of_descriptors(start_broker: StartBroker, connections: Connections) -> None:
    """The listeners are paused, not retried continuously, and not lost."""
    broker = start_broker(
        through=("prlimit", "--nofile=48:48"), projects=[registration("myrepo")], max_connections_admin=64
    )
    links = connections.join(broker.admin, 60)
    poll("its descriptors to be used up", lambda: broker.descriptors() >= 47)
    for link in links:
        with contextlib.suppress(OSError):
            link.send(b"{")  # takes memory, which takes a descriptor
    before = broker.processor_seconds()
    began = time.monotonic()
    settle(1.5)
    assert (broker.processor_seconds() - before) / (time.monotonic() - began) < MAX_IDLE_PROCESSOR_SHARE
    for link in links:
        link.close()
    poll("it to answer again", lambda: _is_served(broker.admin, "status"))
    poll("the connections to be closed", lambda: broker.descriptors() < 40)


def _is_served(path: pathlib.Path, op: str) -> bool:
    with contextlib.suppress(OSError, EOFError), Link(path, timeout=1) as link:
        return bool(link.ask({"op": op})["ok"])
    return False


def test_passed_descriptors_are_not_kept(start_broker: StartBroker) -> None:
    """The kernel refuses them, or they are closed when the message is read. The process at their
    other end sees that."""
    broker = start_broker(projects=[registration("myrepo", "A")])
    with Link(broker.project()) as link:  # the broker keeps the /proc files of the process that connected last
        link.ask({"op": "info"})
        descriptors = broker.descriptors() - 1
    for path in (broker.project(), broker.admin, broker.status_socket):
        with Link(path) as link:
            read_end, write_end = os.pipe()
            try:
                with contextlib.suppress(PermissionError):
                    socket.send_fds(link.socket, [b'{"op":"x"}\n'], [write_end] * 250)
                    assert link.reply()["code"] == "protocol_error"
                os.close(write_end)
                readable, _, _ = select.select([read_end], [], [], WAIT_SECONDS)
                assert readable, "somebody holds the other end"
                assert os.read(read_end, 1) == b""
            finally:
                os.close(read_end)
            poll("the connection before to be closed", lambda: broker.descriptors() <= descriptors + 1)
    poll("the connections to be closed", lambda: broker.descriptors() == descriptors)


@pytest.mark.parametrize("plane", ["project", "mount", "admin", "status_socket"])
def test_a_descriptor_that_takes_long_to_close_delays_no_client(start_broker: StartBroker, plane: str) -> None:
    """A read that discards one closes it before it returns."""
    require_refusal()
    broker = start_broker(projects=[registration("myrepo", "A"), registration("other", "A")])
    broker.push({"A": "a"})
    path = getattr(broker, plane)
    with Link(path() if callable(path) else path) as hostile, SlowDescriptor() as slow:
        with pytest.raises(PermissionError):
            slow.send(hostile.socket, b'{"op":"ping"}\n')
        assert broker.get("A", "other")["value"] == "a"


def test_a_denial_reveals_nothing(start_broker: StartBroker) -> None:
    """The same bytes whether or not the broker holds the secret, another project may have it, or
    nothing was pushed."""
    broker = start_broker(projects=[registration("mine", "A"), registration("other", "B")])
    answers = set()
    with Link(broker.project("mine")) as link:
        for push in ({"A": "x"}, {"A": "x", "B": "y"}, {"B": {"c": "d"}}, {}, None):
            broker.ask({"op": "clear-creds"} if push is None else {"op": "push-creds", "secrets": push})
            for name in ("B", "NOWHERE", "b"):
                link.send({"op": "get", "name": name})
                answers.add(link.line())
    assert len(answers) == 1
    assert json.loads(answers.pop())["reason"] == "not_in_manifest"


def test_concurrent_pushes_have_different_generations(start_broker: StartBroker) -> None:
    """Even if the first to begin is the last to finish."""
    broker = start_broker(projects=[registration("myrepo", "A")])
    long = {"A": "long"} | {f"S{number}": "x" for number in range(20_000)}
    with Link(broker.admin) as first, Link(broker.admin) as second:

        def answers_of_both() -> list[Reply]:
            """The replies to one long push and to the short ones answered before it."""
            first.socket.settimeout(WAIT_SECONDS)
            first.send({"op": "push-creds", "secrets": long})
            first.socket.setblocking(False)
            answers: list[Reply] = []
            while not answers or "long" not in answers[-1]:
                answers.append(second.ask({"op": "push-creds", "secrets": {"A": "short"}}))
                with contextlib.suppress(BlockingIOError):
                    answers.append(first.reply() | {"long": True})
            return answers if len(answers) > 5 else []

        # If the client was too slow, the long push was already done.
        answers = poll("a long push beside several others", answers_of_both)
    generations = [answer["generation"] for answer in answers]
    assert len(set(generations)) == len(generations)
    last = max(answers, key=lambda answer: answer["generation"])
    found = broker.get("A")
    assert (found["generation"], found["value"]) == (last["generation"], "long" if "long" in last else "short")
