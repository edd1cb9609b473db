"""Import one of our commands once and fork it for each run: ten times as fast.

Unlike in a new process, Python's startup does not run, so the environment's encoding settings are
ignored.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from tests.support.programs import environment

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping, Sequence

_MESSAGE = 1 << 20

# argv: the program's module and function, modules to import, the socket's descriptor.
_SERVER = """
import importlib, json, os, socket, sys
module, function, imports, descriptor = sys.argv[1:]
run = getattr(importlib.import_module(module), function)
for name in imports.split(","):
    importlib.import_module(name)
orders = socket.socket(fileno=int(descriptor))
while True:
    data, passed, _, _ = socket.recv_fds(orders, 1 << 20, 3)
    if not data:
        break
    order = json.loads(data)
    child = os.fork()
    if not child:
        orders.close()
        for number, one in enumerate(passed):
            os.dup2(one, number)
            os.close(one)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        sys.argv[1:] = order["argv"]
        try:
            status = run()
        except SystemExit as end:
            status = end.code
        os._exit(status)
    for one in passed:
        os.close(one)
    orders.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
"""


class Preloaded:
    """The forking process. `imports` are modules that the program would import later."""

    def __init__(self, module: str, function: str, imports: Sequence[str]) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVER, module, function, ",".join(imports), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment(),
                stdin=subprocess.DEVNULL,
            )

    def run(
        self, arguments: Sequence[str], *, stdin: bytes, env: Mapping[str, str], cwd: pathlib.Path
    ) -> subprocess.CompletedProcess[bytes]:
        """Run once, to the end; the standard streams are files."""
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            asked.write(stdin)
            asked.seek(0)
            order = json.dumps({"argv": list(arguments), "env": dict(env), "cwd": str(cwd)}).encode()
            socket.send_fds(self._orders, [order], [asked.fileno(), said.fileno(), told.fileno()])
            status = int(self._orders.recv(100))
            said.seek(0)
            told.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, said.read(), told.read())

    def close(self) -> None:
        self._orders.close()
        self._process.wait()


@contextlib.contextmanager
def preloaded(module: str, function: str, imports: Sequence[str]) -> Iterator[Preloaded]:
    with contextlib.closing(Preloaded(module, function, imports)) as program:
        yield program
