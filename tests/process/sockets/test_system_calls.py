"""What a get costs, counted and not timed: the broker's system calls, by strace. One call more is red."""

from __future__ import annotations

import collections
import os
import pathlib
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, Link, registration
from tests.support.machine import poll, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartBroker

GET = b'{"op":"get","name":"A"}\n'
TIMES = 200

# The audit goes to standard error here, with `poll` before `write`; to journald it is one `sendto`.
AUDIT = {"poll": 1, "write": 1}
# Of one get on an open connection: wait, read, audit, answer.
GET_CALLS = {"epoll_wait": 1, "recvfrom": 1, **AUDIT, "sendmsg": 1}
# Of one connection, its get included: accept it, make it a socket object, ask whose it is, register it for one event, read
# its end, close it.
CONNECTION_CALLS = {
    "epoll_wait": 2,
    "accept4": 1,
    "getsockname": 1,
    "getsockopt": 1,
    "epoll_ctl": 1,
    "recvfrom": 2,
    **AUDIT,
    "sendmsg": 1,
    "close": 1,
}
# What the audit learns of the peer: its pidfd, comm and cgroup, exe, whether it still lives, its inode. Without
# SO_PEERPIDFD, before Linux 6.5, its start time is read before and after in place of the pidfd.
SO_PEERPIDFD = 77
WITH_PIDFD = {"getsockopt": 1, "openat": 2, "read": 2, "readlink": 1, "poll": 1, "newfstatat": 1, "close": 3}
WITHOUT_PIDFD = {"getsockopt": 1, "openat": 4, "read": 4, "readlink": 1, "close": 4}
# Not made at all: no second try to accept, no socket made non-blocking, no registration taken back.
FORBIDDEN = {"ioctl", "fcntl", "epoll_create1", "setsockopt", "shutdown"}
# How many calls of a kind there may be beyond TIMES: timers, and every sixteenth accept that finds the queue empty.
SLACK = TIMES // 8


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    if shutil.which("strace") is None or os.geteuid() != 0:
        unavailable("strace is not installed here, or this is not root")
    broker = start_broker(projects=[registration("myrepo", "A")], rate_limit_per_second=0)
    broker.push({"A": "a"})
    return broker


def calls(broker: Broker, directory: pathlib.Path, act: Callable[[], None]) -> dict[str, int]:
    """System call to how often the broker made it while `act` ran."""
    trace = directory / "trace"
    strace = subprocess.Popen(
        ["strace", "-f", "-q", "-o", str(trace), "-p", str(broker.pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        status = pathlib.Path(f"/proc/{broker.pid}/status")
        poll("strace to attach", lambda: f"TracerPid:\t{strace.pid}\n" in status.read_text())
        act()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(10)
        assert strace.stderr is not None
        strace.stderr.close()
    counts: collections.Counter[str] = collections.Counter()
    for line in trace.read_text().splitlines():
        name = line.split(maxsplit=1)[1].partition("(")[0]
        if name.isidentifier():
            counts[name] += 1
    return counts


def has_pidfd() -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        except OSError:
            return False
        return True


def once(broker: Broker) -> None:
    with Link(broker.project()) as link:
        link.send(GET)
        assert link.reply()["ok"]


def test_a_get_on_an_open_connection_makes_so_many_system_calls(broker: Broker, tmp_path: pathlib.Path) -> None:
    with Link(broker.project()) as link:

        def act() -> None:
            for _ in range(TIMES):
                link.send(GET)
                assert link.reply()["ok"]

        act()
        made = calls(broker, tmp_path, act)
    assert {name: count for name, count in made.items() if count > GET_CALLS.get(name, 0) * TIMES + SLACK} == {}
    assert not FORBIDDEN & made.keys()


def test_connect_get_and_close_make_so_many_system_calls(broker: Broker, tmp_path: pathlib.Path) -> None:
    def act() -> None:
        for _ in range(TIMES):
            once(broker)

    act()
    made = calls(broker, tmp_path, act)
    most = collections.Counter(CONNECTION_CALLS) + collections.Counter(WITH_PIDFD if has_pidfd() else WITHOUT_PIDFD)
    assert {name: count for name, count in made.items() if count > most[name] * TIMES + SLACK} == {}
    assert not FORBIDDEN & made.keys()
