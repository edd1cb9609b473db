"""Has manifests read by children: a project's files are hostile, and the process that holds secrets parses none.

A child lives for one manifest and `READ_SECONDS` at most. What it prints is checked as if it came from outside.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import deque

from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused
from remo_broker.protocol.names import is_secret_name, printable
from remo_broker.protocol.ops import Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from remo_broker.broker.loop import Later, Loop
    from remo_broker.protocol.config import Config

# `manifest_unreadable` is due within 2 s; a child answers in some 0.2 s, so the rest is for a slow disk.
READ_SECONDS = 1.8
# Children at one time: a few that take long must not hold up the others, more would take the machine from everybody.
MAX_CHILDREN = 3
# Children that hang in the kernel past their deadline, on a file system that does not answer: beyond so many none is
# started any more (the unit allows 64 tasks).
MAX_HUNG = 32
# An allowlist of 64 KiB, the path of its file and the JSON around them.
MAX_OUTPUT = 256 * 1024
# The longest error line that is passed on.
MAX_MESSAGE_TEXT = 1000

# Where this package is: an editable install may find it by a hook that a child without `site` does not have.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_CODES = {str(code): code for code in (Code.MANIFEST_INVALID, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_UNREADABLE)}


class Allowed:
    """What a valid manifest allows."""

    __slots__ = ("allowlist", "max_entries", "ttl_seconds")

    def __init__(self, allowlist: list[str], ttl_seconds: int, max_entries: int) -> None:
        self.allowlist = allowlist
        self.ttl_seconds = ttl_seconds
        self.max_entries = max_entries


class ManifestReader:
    """Reads manifests, a few at a time, without holding up the loop."""

    def __init__(self, loop: Loop, config: Config) -> None:
        self._loop = loop
        self._config = config
        self._queue: deque[tuple[str, str, Later]] = deque()
        self._children = 0
        self._hung = 0

    def read(self, project_path: str, name: str) -> Later:
        """Its result is `Allowed`, or `Refused` with one of the manifest codes."""
        later = self._loop.later()
        self._queue.append((project_path, name, later))
        self._begin()
        return later

    def _begin(self) -> None:
        while self._queue and self._children < MAX_CHILDREN:
            project_path, name, later = self._queue.popleft()
            if self._hung >= MAX_HUNG:
                later.set(_unreadable("too many readers hang on file systems that do not answer; look at those first"))
                continue
            try:
                _Child(self, self._loop, self._config, project_path, name, later)
            except OSError as error:
                later.set(_unreadable(f"no reader could be started ({os.strerror(error.errno or 0)}); try again"))
            else:
                self._children += 1

    def ended(self) -> None:
        self._children -= 1
        self._begin()

    def hangs(self) -> None:
        """A child did not end in time: others take its place, and it is waited for apart."""
        self._hung += 1
        self.ended()

    def hung_ended(self) -> None:
        self._hung -= 1


class _Child:
    """One reader: its pipe, its process, its deadline."""

    def __init__(
        self, owner: ManifestReader, loop: Loop, config: Config, project_path: str, name: str, later: Later
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._config = config
        self._later = later
        self._output = b""
        self._expired_at_all = False
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        arguments = [
            *(sys.executable, "-S", "-P", "-m", "remo_broker.manifest"),
            *("--project-path", project_path, "--name", name),
            *("--max-ttl-seconds", str(config.cache_default_ttl_seconds)),
            *("--max-entries", str(config.cache_default_max_entries)),
        ]
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                arguments,
                # The modules that this process has, and nothing else of its environment.
                {"PYTHONPATH": os.pathsep.join([_PACKAGE, *sys.path]), "LC_ALL": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                ],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGINT],
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self._pidfd = os.pidfd_open(self._pid)
        self._timer = loop.after(READ_SECONDS, self._expired)
        loop.watch(self._pipe, READ, self._readable)
        loop.watch(self._pidfd, READ, self._exited)

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        self._output += data
        if len(self._output) > MAX_OUTPUT:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            data = b""
        if not data:
            self._close_pipe()
            self._later.set(parse(self._output, self._config))

    def _exited(self) -> None:
        """Reaped only now: a child that hangs in the kernel outlives its deadline, and nobody waits for it."""
        os.waitpid(self._pid, 0)
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._timer.cancel()
        if self._expired_at_all:
            self._owner.hung_ended()
        else:
            self._owner.ended()

    def _expired(self) -> None:
        self._expired_at_all = True
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._close_pipe()
        self._later.set(
            _unreadable(f"reading it took longer than {READ_SECONDS:g} seconds; look at the file and its file system")
        )
        self._owner.hangs()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.forget(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


def parse(output: bytes, config: Config) -> Allowed | Refused:
    """What a child has said, checked."""
    try:
        said: Any = json.loads(output)
        if said["ok"] is True:
            names, ttl, entries = said["allowlist"], said["ttl_seconds"], said["max_entries"]
            if (
                isinstance(names, list)
                and all(isinstance(name, str) and is_secret_name(name) for name in names)
                and len(set(names)) == len(names)
                and type(ttl) is int
                and 1 <= ttl <= config.cache_default_ttl_seconds
                and type(entries) is int
                and 1 <= entries <= config.cache_default_max_entries
            ):
                return Allowed(names, ttl, entries)
        else:
            text = printable(str(said["message"]), MAX_MESSAGE_TEXT)
            return Refused(_CODES[said["code"]], None, text)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return _unreadable("the reader gave no answer; the file may be made to break it; 'remo-brokerctl check' may tell")


def _unreadable(message: str) -> Refused:
    return Refused(Code.MANIFEST_UNREADABLE, None, f"the manifest could not be read: {message}")
