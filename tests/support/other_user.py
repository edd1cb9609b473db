"""A client of a broker that runs as another user."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.broker import WAIT_SECONDS, encode
from tests.support.machine import unavailable


def ask_as(uid: int, path: str | os.PathLike[str], request: object) -> bytes:
    """Send one request as another user; return the whole reply.

    Skips the test unless run as root.
    """
    if os.geteuid() != 0:
        unavailable("connecting as another user takes root")
    code = (
        "import socket, sys\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        "client.sendall(sys.stdin.buffer.read())\n"
        "client.shutdown(socket.SHUT_WR)\n"
        "sys.stdout.buffer.write(client.makefile('rb').read())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, os.fspath(path)],
        input=encode(request),
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=[],
        timeout=WAIT_SECONDS,
        check=True,
    )
    return done.stdout
