"""Has another process read the manifests: a project's files are hostile, and the process that holds
secrets reads none.

Under systemd that process is `remo-broker-manifest@.service`, which has its own user and sandbox;
otherwise it is a child. Each reads one manifest and exits. Its output is untrusted and checked.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module, without enums
import _socket
import json
import os
import sys
from collections import deque

from remo_broker.broker import helper_process
from remo_broker.broker.loop import READ
from remo_broker.broker.projects import ManifestSource
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.passed_descriptors import refuse_descriptors
from remo_broker.protocol import paths
from remo_broker.protocol.codes import Code
from remo_broker.protocol.names import is_host, is_secret_name, printable
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from remo_broker.broker.helper_process import Answer
    from remo_broker.broker.loop import Job, Later, Loop
    from remo_broker.protocol.config import Config

# `manifest_unreadable` is due 2 s after reading has begun. Reading takes a few milliseconds; the rest is for a slow
# disk.
READ_SECONDS = 1.8
# Before that, a reader is started, which takes 0.2 s, and many times that on a busy machine. A
# project's files cannot prolong it. Both limits together, twice if another reader must finish
# first, and then the binder's, are below `REPLY_SECONDS`, the time that clients wait.
START_SECONDS = 6.0
# Concurrent readers: enough that a few slow ones do not block the others, few enough not to
# overload the machine.
MAX_READERS = 3
# Children that hang in the kernel past their deadline, on a file system that does not answer. At
# this number the broker starts no more.
MAX_HUNG = 32
# An allowlist of 64 KiB, its file's path and the JSON around them.
MAX_OUTPUT = 256 * 1024
# A directory of Linux's longest path, and the manifest's place in it.
MAX_SOURCE = 4096 + 64
SHA256_DIGITS = 64
# The longest error line that is passed on.
MAX_MESSAGE_TEXT = 1000

# The directory of this package. An editable install may find it through a hook that a child without
# `site` does not have.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_COULD_NOT = "the manifest could not be read"
_CODES = {str(code): code for code in (Code.MANIFEST_INVALID, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_UNREADABLE)}


class NotRead(Refused):
    """No reader answered in time. That says nothing about the manifest, so it is worth another
    try."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.MANIFEST_UNREADABLE, None, message)


class Allowed:
    """What a valid manifest allows."""

    __slots__ = ("allowlist", "max_entries", "source", "ttl_seconds")

    def __init__(self, allowlist: list[str], ttl_seconds: int, max_entries: int, source: ManifestSource) -> None:
        self.source = source
        self.allowlist = allowlist
        self.ttl_seconds = ttl_seconds
        self.max_entries = max_entries


class ManifestReader:
    """Has manifests read, a few at a time, without blocking the loop."""

    def __init__(self, loop: Loop, config: Config) -> None:
        self._loop = loop
        self._config = config
        self._queue: deque[tuple[str, str | None, Later]] = deque()
        self._readers = 0
        self._hung = 0
        self._helper = paths.internal_socket(config.socket_dir, paths.MANIFEST_SOCKET)
        self._delegates = os.path.isdir(os.path.dirname(self._helper))

    def read(self, project_path: str, name: str | None) -> Later:
        """The result is `Allowed`, or `Refused` with one of the manifest codes. With `name` None,
        the manifest and its directory may have any name."""
        later = self._loop.later()
        self._queue.append((project_path, name, later))
        self._begin()
        return later

    def _begin(self) -> None:
        while self._queue and self._readers < MAX_READERS:
            project_path, name, later = self._queue.popleft()
            self._readers += 1
            self._loop.start(self._read(project_path, name, later))

    def _read(self, project_path: str, name: str | None, later: Later) -> Job:
        try:
            answer = yield from self._ask(self._request(project_path, name))
            later.set(answer if isinstance(answer, NotRead) else parse(answer, self._config))
        finally:
            later.set(_not_read("internal error"))  # unless it was set: who waits for it holds a lock
            self._readers -= 1
            self._begin()

    def _request(self, project_path: str, name: str | None) -> bytes:
        request = {
            "project_path": project_path,
            "name": name,
            "max_ttl_seconds": self._config.cache_default_ttl_seconds,
            "max_entries": self._config.cache_default_max_entries,
        }
        return json.dumps(request).encode() + b"\n"

    def _ask(self, request: bytes) -> Generator[Later | None, Any, bytes | NotRead]:
        """Returns a reader's output, or `NotRead` with why there is none."""
        child: _Child | None = None
        if self._delegates:
            try:
                connection = helper_process.connect(self._helper, descriptors=False)
            except helper_process.HelperUnreachable as problem:
                return _not_read(
                    f"its reader cannot be reached ({problem}); run 'systemctl start remo-broker-manifest.socket'"
                )
        elif self._hung >= MAX_HUNG:
            return _not_read("too many readers hang on file systems that do not answer; look at those first")
        else:
            try:
                child = _Child(self._loop, self._reaped)
            except OSError as error:
                return _not_read(f"no reader could be started ({os.strerror(error.errno or 0)}); try again")
            connection = child.connection
        try:
            answer: Answer | helper_process.HelperUnreachable = yield helper_process.Call(
                self._loop, connection, request, READ_SECONDS, MAX_OUTPUT, START_SECONDS
            ).later
        except helper_process.HelperUnreachable as problem:
            answer = problem
        if child is not None and child.ends(killed=not isinstance(answer, tuple)):
            self._hung += 1
        if isinstance(answer, helper_process.HelperNotStarted):
            return _not_read(f"its reader took longer than {START_SECONDS:g} seconds to start; try again")
        if isinstance(answer, helper_process.HelperTimedOut):
            return _not_read(
                f"reading it took longer than {READ_SECONDS:g} seconds; look at the file and its file system"
            )
        if isinstance(answer, helper_process.HelperUnreachable):
            return _not_read(
                "its reader ended without a reply; the file may be crafted to break it: run 'remo-brokerctl check'"
            )
        line, descriptors = answer
        helper_process.close_all(descriptors)  # a reader has none to give; one that a file took over may send some
        return line

    def _reaped(self, child: _Child) -> None:
        if child.hung:
            self._hung -= 1


class _Child:
    """A reader for use without systemd. `connection` leads to it."""

    def __init__(self, loop: Loop, reaped: Callable[[_Child], None]) -> None:
        self.hung = False
        self._loop = loop
        self._on_reaped = reaped
        self.connection, theirs = _socket.socketpair()
        self.connection.setblocking(False)
        refuse_descriptors(self.connection)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-S", "-P", "-m", "remo_broker.manifest"],
                # This process's module path, and nothing else from its environment.
                {"PYTHONPATH": os.pathsep.join([_PACKAGE, *sys.path]), "LC_ALL": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                ],
                setsigmask=[],
                setsigdef=[_signal.SIGPIPE, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT],
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self._pidfd = os.pidfd_open(self._pid)
        loop.watch(self._pidfd, READ, self._exited)

    def ends(self, *, killed: bool) -> bool:
        """The child has answered, or is killed. Returns whether it is still there, such as when it
        hangs in the kernel."""
        if self._pidfd < 0 or not killed:
            return False
        _signal.pidfd_send_signal(self._pidfd, _signal.SIGKILL)
        self.hung = True
        return True

    def _exited(self) -> None:
        os.waitpid(self._pid, 0)
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._on_reaped(self)


def parse(output: bytes, config: Config) -> Allowed | Refused:
    """A reader's output, checked."""
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
                return Allowed(names, ttl, entries, _source(said, names))
        else:
            text = printable(str(said["message"]), MAX_MESSAGE_TEXT)
            return NotRead(text) if said.get("late") is True else Refused(_CODES[said["code"]], None, text)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return _unreadable(
        "its reader sent a malformed reply; the file may be crafted to break it: run 'remo-brokerctl check'"
    )


def _source(said: Any, names: list[str]) -> ManifestSource:
    """Raises ValueError, KeyError or TypeError for anything that no manifest can produce."""
    path, sha256, hosts, bindings = said["source"], said["sha256"], said["hosts"], said["bindings"]
    if not (
        isinstance(path, str)
        and path.startswith("/")
        and len(path) <= MAX_SOURCE
        and path == printable(path, MAX_SOURCE)
    ):
        path = ""
    if not (isinstance(sha256, str) and len(sha256) == SHA256_DIGITS and set(sha256) <= set("0123456789abcdef")):
        raise ValueError
    if not (isinstance(hosts, dict) and isinstance(bindings, dict)):
        raise TypeError
    if not (set(hosts.values()) <= set(names) and all(is_host(host) for host in hosts)):
        raise ValueError
    if not set(bindings) <= set(names):
        raise ValueError
    text = json.dumps(bindings, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_MESSAGE:
        raise ValueError
    return ManifestSource(path, sha256, hosts, text)


def _unreadable(message: str) -> Refused:
    return Refused(Code.MANIFEST_UNREADABLE, None, f"{_COULD_NOT}: {message}")


def _not_read(message: str) -> NotRead:
    return NotRead(f"{_COULD_NOT}: {message}")
