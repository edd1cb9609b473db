"""The system calls that the broker makes for a get, as HACKING.md lists them, and how to count
them."""

from __future__ import annotations

import collections
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a test makes of each kind, so that a timer's calls do not show.
TIMES = 200
# How many calls of a kind there may be beyond TIMES: timers, and every sixteenth accept that finds
# the queue empty.
SLACK = TIMES // 8

# One get on an open connection: wait, read, reply. The audit record is apart, because standard
# error takes it otherwise than journald.
GET = {"epoll_wait": 1, "recvfrom": 1, "sendmsg": 1}
# One connection, its get included: accept it, make it a socket object, ask for its credentials,
# register it for one event, read its end, close it.
CONNECTION = {
    "epoll_wait": 2,
    "accept4": 1,
    "getsockname": 1,
    "getsockopt": 1,
    "epoll_ctl": 1,
    "recvfrom": 2,
    "sendmsg": 1,
    "close": 1,
}
TO_JOURNALD = {"sendto": 1}
TO_STANDARD_ERROR = {"poll": 1, "write": 1}
# What the audit learns about the peer, which connects again and again: its comm and cgroup from
# files that are open already, and whether it still runs. Before Linux 6.5, without SO_PEERPIDFD, its
# start time is read before and after instead.
SO_PEERPIDFD = 77
WITH_PIDFD = {"pread64": 2, "poll": 1}
WITHOUT_PIDFD = {
    "getsockopt": 1,
    "openat": 4,
    "newfstatat": 2,
    "ioctl": 2,
    "lseek": 4,
    "read": 4,
    "pread64": 2,
    "close": 4,
}
# A read of a connection whose client has not sent yet, as it happens where that is slow: each costs
# a further turn, and the registration that was saved. Fewer than half may be so; that all are would
# be the broker's doing.
EARLY = "recvfrom, too early"
OF_EARLY = {"recvfrom": 1, "epoll_wait": 1, "epoll_ctl": 2}
MOST_EARLY = TIMES // 2
# What a newer C library or Python calls, by the name of what an older one calls for the same.
SAME = {"fstat": "newfstatat", "ppoll": "poll"}
# The executable, of which the kernel tells root and the process's own user only.
EXECUTABLE = {"readlink": 1}


def of_peer() -> Mapping[str, int]:
    """What this kernel makes the broker do."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        except OSError:
            return WITHOUT_PIDFD
    return WITH_PIDFD


def read_trace(text: str) -> collections.Counter[str]:
    """System call to how often it was made, from what `strace -f -o` has written."""
    counts: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        name = line.split(maxsplit=1)[1].partition("(")[0]
        if name.isidentifier():
            counts[SAME.get(name, name)] += 1
    return counts


def read_trace_of_broker(text: str) -> collections.Counter[str]:
    """The same, and how many of its reads were `EARLY`."""
    counts = read_trace(text)
    counts[EARLY] = sum(1 for line in text.splitlines() if " recvfrom(" in line and " EAGAIN " in line)
    return counts


def excess(made: Mapping[str, int], *expected: Mapping[str, int]) -> dict[str, int]:
    """The calls that were made more often than `TIMES` times what is expected of them."""
    most = sum((collections.Counter(one) for one in expected), collections.Counter())
    allowed = {name: most[name] * TIMES + OF_EARLY.get(name, 0) * made[EARLY] + SLACK for name in made}
    allowed[EARLY] = MOST_EARLY
    return {name: count for name, count in made.items() if count > allowed[name]}
