"""The helper that creates sockets, without systemd."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from remo_broker.binder import files
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

# argv: the descriptor of a connection, the directory of the sockets.
_HELPER = """
import resource, socket, sys
from remo_broker.binder.__main__ import serve
from remo_broker.broker.privileges import drop_capabilities
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
drop_capabilities()
with socket.socket(fileno=int(sys.argv[1])) as connection:
    serve(connection, sys.argv[2])
"""


@contextlib.contextmanager
def in_flight() -> Iterator[None]:
    """Meanwhile, this user has more descriptors in flight than the helper's limit."""
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [b"x"], [left.fileno()] * 100)
        yield


def test_a_helper_that_cannot_pass_the_sockets_says_why_and_goes_on(directory: pathlib.Path) -> None:
    request = {"op": "make", "project": "app", "owner": "/src/app", "kinds": list(files.KINDS), "renew": False}
    line = json.dumps(request).encode() + b"\n"
    ours, its = socket.socketpair()
    with its:
        command = [sys.executable, "-c", _HELPER, str(its.fileno()), str(directory)]
        helper = subprocess.Popen(command, pass_fds=[its.fileno()])

    def ask() -> tuple[dict[str, Any], int]:
        """Its reply, and how many sockets it passed."""
        ours.sendall(line)
        data, descriptors, *_ = socket.recv_fds(ours, 4096, len(files.KINDS))
        for one in descriptors:
            socket.close(one)
        reply: dict[str, Any] = json.loads(data)
        return reply, len(descriptors)

    with helper, ours:
        ours.settimeout(60)
        with in_flight():
            reply, passed = ask()
        assert (reply["ok"], passed) == (False, 0)
        assert "cannot pass sockets: Too many references" in reply["message"]
        # Other tests may meanwhile keep some in flight, as the same user.
        poll("the helper to pass them", lambda: ask() == ({"ok": True}, len(files.KINDS)))
