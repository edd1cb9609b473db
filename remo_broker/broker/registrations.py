"""Registrations on disk, so that a restart allows nothing new and keeps every project.

One file, written to a temporary name, synced and renamed, so that a crash at any moment leaves the
old or the new one. It holds allowlists as they were validated. It holds no secret, and a start
reads no path inside a project from it.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import json
import os
import stat
import time

from remo_broker.broker.projects import ManifestSource, Registration
from remo_broker.protocol.clock import now_usec
from remo_broker.protocol.names import RESERVED_PROJECT_NAMES, is_host, is_project_name, is_secret_name
from remo_broker.protocol.shared_limits import MAX_LEASES, MAX_TTL_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILE_NAME = "registrations.json"
# An unusable file is kept under this name and the time, for inspection.
ASIDE_NAME = "registrations.json.corrupt"
# How many are kept, the newest: a disk that damages each of them must not fill up as well.
MAX_ASIDE = 16
FORMAT_VERSION = 1


class Damaged(Exception):
    """The file exists but cannot be used. The text says why and what was done, for the log."""


class Unread(Damaged):
    """The file may be good, but could not be read. It stays in place, and is set aside before
    anything replaces it."""


class Foreign(Exception):
    """A file that other users may have written. The text says why."""


def claim(state_dir: str) -> bool:
    """Lock `state_dir` against other brokers while this process lives. False if another holds
    it."""
    try:
        directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True  # there is no directory to save in
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        return False
    except OSError:
        pass  # a file system without locks
    return True  # the open descriptor holds the lock


def load(state_dir: str) -> list[Registration]:
    """The registrations, in order of their names. A missing file means no registrations.

    Raises `Damaged` after moving a malformed file aside, or its subclass `Unread`, which leaves the
    file in place. Either way the broker starts and says what it lost.
    """
    path = os.path.join(state_dir, FILE_NAME)
    try:
        data = read_own(path)
    except FileNotFoundError:
        return []
    except Foreign as problem:
        raise Unread(
            f"{path}: {problem}; no project is registered. Find out who put it there; if projects are registered before it is "
            f"removed, it is kept as {path}.corrupt-TIME."
        ) from None
    except OSError as error:
        raise Unread(
            f"{path}: {os.strerror(error.errno or 0)}; no project is registered. Make it readable for the broker's user and "
            f"restart remo-broker.service; if projects are registered before that, it is kept as {path}.corrupt-TIME."
        ) from None
    try:
        return [_registration(entry) for entry in _entries(json.loads(data))]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    try:
        aside = set_aside(state_dir)
    except OSError as error:
        raise Unread(
            f"{path} is damaged; no project is registered. It could not be moved aside ({os.strerror(error.errno or 0)})."
        ) from None
    raise Damaged(f"{path} is damaged; no project is registered. It was kept as {aside}; register the projects again.")


def read_own(path: str) -> bytes:
    """The bytes of a file that only this user or root can have written. Raises OSError and
    `Foreign`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Foreign("it is a symlink, which the broker never makes") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Foreign("it is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise Foreign(f"it belongs to uid {found.st_uid}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Foreign(f"others can write to it (mode {stat.S_IMODE(found.st_mode):04o})")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def set_aside(state_dir: str) -> str:
    """Rename the file and return the new path. A missing file is not an error. Raises OSError."""
    kept = sorted(name for name in os.listdir(state_dir) if name.startswith(ASIDE_NAME))
    for name in kept[: max(0, len(kept) + 1 - MAX_ASIDE)]:
        try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
            os.unlink(os.path.join(state_dir, name))
        except OSError:
            pass  # a directory, say: one more is harmless
    now = now_usec()
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 1_000_000))
    aside = os.path.join(state_dir, f"{ASIDE_NAME}-{moment}.{now % 1_000_000:06}Z")
    try:  # noqa: SIM105
        os.rename(os.path.join(state_dir, FILE_NAME), aside)
    except FileNotFoundError:
        pass
    return aside


def _entries(document: object) -> list[dict[str, object]]:
    if not isinstance(document, dict) or document["version"] != FORMAT_VERSION:
        raise ValueError
    entries = document["projects"]
    if not isinstance(entries, list) or len({entry["name"] for entry in entries}) != len(entries):
        raise ValueError
    return entries


def _registration(entry: dict[str, object]) -> Registration:
    """One entry, checked like outside input: the broker serves what it allows."""
    name, path, allowlist, uids = entry["name"], entry["project_path"], entry["allowlist"], entry["allowed_uids"]
    ttl, leases = entry["ttl_seconds"], entry["max_entries"]
    if not (isinstance(name, str) and is_project_name(name) and name not in RESERVED_PROJECT_NAMES):
        raise ValueError
    if not (isinstance(path, str) and os.path.isabs(path)):
        raise ValueError
    if not (isinstance(allowlist, list) and all(isinstance(item, str) and is_secret_name(item) for item in allowlist)):
        raise ValueError
    if len(set(allowlist)) != len(allowlist):
        raise ValueError
    if not (isinstance(uids, list) and all(type(uid) is int and uid >= 0 for uid in uids)):
        raise ValueError
    if not (type(ttl) is int and 1 <= ttl <= MAX_TTL_SECONDS and type(leases) is int and 1 <= leases <= MAX_LEASES):
        raise ValueError
    any_name = entry.get("any_name", False)
    if not isinstance(any_name, bool):
        raise ValueError
    return Registration(name, path, allowlist, ttl, leases, uids, _source(entry.get("manifest")), any_name=any_name)


def _source(entry: object) -> ManifestSource | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise ValueError
    path, sha256, hosts, bindings = entry["path"], entry["sha256"], entry["hosts"], entry["bindings"]
    if not (isinstance(path, str) and isinstance(sha256, str) and isinstance(bindings, dict)):
        raise ValueError
    if not (isinstance(hosts, dict) and all(is_host(host) for host in hosts)):
        raise ValueError
    if not all(isinstance(name, str) and is_secret_name(name) for name in hosts.values()):
        raise ValueError
    return ManifestSource(path, sha256, hosts, json.dumps(bindings, separators=(",", ":")).encode("ascii"))


def encode(registrations: Iterable[Registration]) -> bytes:
    """The file's content. Each registration is encoded once."""
    entries = b",".join(one.encoded or _encode(one) for one in sorted(registrations, key=lambda one: one.name))
    return b'{"version":%d,"projects":[%b]}\n' % (FORMAT_VERSION, entries)


def _encode(one: Registration) -> bytes:
    entry = {
        "name": one.name,
        "project_path": one.project_path,
        "allowlist": one.allowlist,
        "ttl_seconds": one.ttl_seconds,
        "max_entries": one.max_entries,
        "allowed_uids": one.allowed_uids,
    }
    if one.any_name:
        entry["any_name"] = True
    one.encoded = json.dumps(entry, separators=(",", ":")).encode("ascii")
    if one.source is not None:
        source = {"path": one.source.path, "sha256": one.source.sha256, "hosts": one.source.hosts}
        head = json.dumps(source, separators=(",", ":")).encode("ascii")
        one.encoded = b'%b,"manifest":%b,"bindings":%b}}' % (one.encoded[:-1], head[:-1], one.source.bindings)
    time.sleep(0)  # lets the loop run, which would otherwise wait five milliseconds
    return one.encoded


def save(state_dir: str, data: bytes) -> None:
    """Replace the file with `data`, durably. Raises OSError and leaves the old file."""
    write_own(os.path.join(state_dir, FILE_NAME), data, durable=True)
    try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
        _sync_directory(state_dir)
    except OSError:
        pass  # it is saved, unless the power fails before the disk has it


def write_own(path: str, data: bytes, *, durable: bool) -> None:
    """Replace a state file in one step; `durable` waits for the disk to have `data`. Raises OSError
    and leaves the old file."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # a leftover temporary file may have another mode
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Writer:
    """Saves in its own thread, one state at a time: a sync may take long and must not block the
    loop. Nor must encoding a thousand projects, which takes 40 ms.

    `wakeup` is an eventfd for the loop to watch: when it is readable, call `finished`.
    """

    def __init__(self, state_dir: str) -> None:
        self.keep_aside = False
        """A file could not be read: set it aside before anything replaces it."""
        self._state_dir = state_dir
        self.wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._done: Callable[[OSError | None], None] | None = None
        self._error: OSError | None = None

    @property
    def busy(self) -> bool:
        return self._done is not None

    def save(self, registrations: list[Registration], done: Callable[[OSError | None], None]) -> None:
        """Write `registrations` soon, then call `done` in the loop's thread with the error, if any.
        Do not call while `busy`."""
        assert not self.busy
        self._done = done
        # Stays until the save succeeds: however else the thread ends, that counts as a failure.
        self._error = OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            _thread.start_new_thread(self._write, (registrations,))
        except RuntimeError:  # cannot start a thread; the loop can afford to wait once
            self._write(registrations)

    def finished(self) -> None:
        """Call when the thread is done: passes its result to `done`."""
        os.eventfd_read(self.wakeup)
        done, self._done = self._done, None
        assert done is not None
        done(self._error)

    def _write(self, registrations: list[Registration]) -> None:
        try:
            if self.keep_aside:
                set_aside(self._state_dir)
                self.keep_aside = False
            save(self._state_dir, encode(registrations))
            self._error = None
        except OSError as error:
            self._error = error
        finally:
            os.eventfd_write(self.wakeup, 1)

    def close(self) -> None:
        os.close(self.wakeup)
