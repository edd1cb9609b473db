"""Attackers as separate processes, and a well-behaved client."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol.shared_limits import REPLY_SECONDS
from tests.support.broker import Link
from tests.support.machine import poll
from tests.support.processes import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.broker import Broker

    Attack = Callable[..., subprocess.Popen[bytes]]

GET = {"op": "get", "name": "TOKEN"}
# How often the client of another project asks.
EVERY_SECONDS = 0.002
ATTACKER = pathlib.Path(__file__).with_name("attacker.py")
# Attackers yield the processors to the broker and the tests.
NICE_ATTACKER = 10
# The most processor time that the broker may spend on others before it answers a get. Wall-clock
# time would depend on other processes of this machine. The benchmarks' limit, too.
MAX_SECONDS = 0.050


@pytest.fixture
def attack() -> Iterator[Attack]:
    """`attack(kind, socket)` starts one that runs until the test ends, as `user`."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, path: str | os.PathLike[str], user: int | None = None) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [
                    "nice",
                    f"-n{NICE_ATTACKER}",
                    "prlimit",
                    "--nofile=4096:4096",
                    sys.executable,
                    "-IS",
                    ATTACKER,
                    kind,
                    path,
                ],
                stdout=subprocess.PIPE,
                user=user,
                extra_groups=None if user is None else [],
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            return process

        yield start


class OtherClient:
    """A client of another project: each of its gets must be answered. It regularly uses a
    new connection."""

    CONNECT_EVERY = 5

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._link = Link(broker.project("quiet"))
        self._asked = 0

    def close(self) -> None:
        self._link.close()

    @contextlib.contextmanager
    def _asks(self) -> Iterator[Link]:
        """A connection on which the block sends a request; the reply must be the value."""
        self._asked += 1
        with contextlib.ExitStack() as stack:
            link = self._link
            if self._asked % self.CONNECT_EVERY == 0:
                link = stack.enter_context(Link(self._broker.project("quiet")))
            yield link
            assert link.reply().get("value") == "value"

    def get(self) -> None:
        with self._asks() as link:
            link.send(GET)

    def get_behind_others(self) -> float:
        """Ask while the broker is stopped, so that it finds all that others can have sent by then.

        Returns its processor time until this process has the reply, in seconds. That is more than
        it took if this process had to wait for a processor.
        """
        self._broker.signal(signal.SIGSTOP)
        poll("the broker to be stopped", lambda: state(self._broker.pid) == "T")
        before = self._broker.processor_seconds()
        with self._asks() as link:
            link.send(GET)
            self._broker.signal(signal.SIGCONT)
        return self._broker.processor_seconds() - before

    def gets_until_reply(self, operator: Link) -> int:
        """How many gets were answered before the operator was, who waits as long as our clients do."""
        gets = 0
        given_up = time.monotonic() + REPLY_SECONDS
        while not select.select([operator.socket], [], [], EVERY_SECONDS)[0]:
            assert time.monotonic() < given_up
            before = self._broker.processor_seconds()
            self.get()
            assert self._broker.processor_seconds() - before < MAX_SECONDS
            gets += 1
        return gets


@pytest.fixture
def other_client(broker: Broker) -> Iterator[OtherClient]:
    with contextlib.closing(OtherClient(broker)) as other_client:
        other_client.get()  # so that its connection has been accepted before tests count descriptors
        yield other_client
