"""Who is measured, by what, and what it gives for its time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench.generator import FetchCommand, OwnClient, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.bench.programs import Programs

# How long a server may take until it listens.
START_SECONDS = 15

REALTIME_PRIORITY = 10
REALTIME = ("chrt", "--fifo", str(REALTIME_PRIORITY))

# A secret of usual length, the same for everybody.
SECRET = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"


class Missing(Exception):
    """A contestant cannot run here; the text says what lacks."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One row of the table. `audit`, `allowlist` and `memory` say in a few words what a fetch
    comes with."""

    name: str
    does: str
    audit: str
    allowlist: str
    memory: str
    probe: Target | FetchCommand | OwnClient


@dataclasses.dataclass(frozen=True)
class Place:
    """Where servers and clients run: a directory for their files, and the processors that they are kept on.

    With one connection the client shares the server's processor, so that work is measured and not how long a sleeping
    processor takes to wake; with many it has the other one. None: the machine does not allow pinning. `realtime` puts
    clients, servers and journald before all else that runs, for machines that are not idle.
    """

    work: pathlib.Path
    programs: Programs
    server_cpu: int | None
    client_cpu: int | None
    realtime: bool = False

    @classmethod
    def choose(cls, work: pathlib.Path, programs: Programs, *, realtime: bool = False) -> Place:
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2 or shutil.which("taskset") is None:
            return cls(work, programs, None, None, realtime)
        return cls(work, programs, allowed[0], allowed[-1], realtime)

    def directory(self, name: str) -> pathlib.Path:
        """A new private directory."""
        path = self.work / name
        path.mkdir(mode=0o700)
        return path

    def pinned(self, argv: Sequence[str]) -> list[str]:
        """`argv` such that it starts on the servers' processor."""
        pin = [] if self.server_cpu is None else ["taskset", "-c", str(self.server_cpu)]
        return [*pin, *self.preferred(argv)]

    def preferred(self, argv: Sequence[str]) -> list[str]:
        """`argv` such that it starts with the priority of all that is measured."""
        return [*REALTIME, *argv] if self.realtime else [*argv]

    @contextlib.contextmanager
    def holding(self, pid: int, cpu: int | None) -> Iterator[None]:
        """Keep a process that runs already, with all of its threads, on a processor (None:
        where it was), and with that priority."""
        before = {
            one: (os.sched_getaffinity(one), os.sched_getscheduler(one), os.sched_getparam(one))
            for one in _threads(pid)
        }
        for thread in before:
            if cpu is not None:
                os.sched_setaffinity(thread, {cpu})
            if self.realtime:
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
        try:
            yield
        finally:
            for thread, (processors, policy, parameters) in before.items():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, processors)
                    os.sched_setscheduler(thread, policy, parameters)

    @contextlib.contextmanager
    def server(
        self, argv: Sequence[str], path: pathlib.Path, env: Mapping[str, str] | None = None, *, pinned: bool = True
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server until the block ends; the block begins when it listens on `path`. What
        it writes is kept in a file."""
        with (self.work / f"{path.name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.pinned(argv) if pinned else self.preferred(argv),
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                if not wait_for(path, process):
                    said = pathlib.Path(log.name).read_text(errors="replace").strip()
                    raise Missing(f"it did not listen on {path}: {said[-500:]}")
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _threads(pid: int) -> list[int]:
    return [int(one.name) for one in pathlib.Path(f"/proc/{pid}/task").iterdir()]


def wait_for(path: pathlib.Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether the server listens on the socket `path` before it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not _listens(path):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _listens(path: pathlib.Path) -> bool:
    """A socket is there from bind(2) on, and refuses until listen(2). Of anything else it is
    enough that it is there."""
    if not path.is_socket():
        return path.exists()
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def program(name: str, package: str) -> str:
    """The path of a program. Raises Missing with the package that has it."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed (Debian: {package})")
    return path
