"""The two destinations of audit records: journald's datagram socket, and standard error outside
systemd.

`sd_journal_send` reports success if the socket is missing and blocks if its queue is full, so the
broker speaks the native protocol itself. A datagram can carry several entries, separated by empty
lines: a turn of the loop hands over all its records with one call, and journald reads them faster
than separate ones. But from systemd 253 on, journald drops all entries behind the first that has a
MESSAGE=. So datagrams have several entries only where journald is known to be older.

journald also accepts records that it has no room for, and drops them. When the disk of its file is
full, it closes that file and continues in /run; if there is no room either, it has no file at all.
`can_write` checks for that.
"""

from __future__ import annotations

import _socket
import errno
import json
import os
import select
import sys
import time

from remo_broker.protocol.audit_records import JOURNAL
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.mounts import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SOCKETS_DIRECTORY = "/run/systemd/journal"
SOCKET_PATH = f"{SOCKETS_DIRECTORY}/socket"
# Where journald keeps its file, below the machine's id, and where it continues when there is no
# room. Only its group can read the latter.
JOURNAL_DIRECTORY = "/var/log/journal"
RUNTIME_DIRECTORY = "/run/log/journal"
MACHINE_ID_PATH = "/etc/machine-id"
# The smallest file that journald keeps. On a full disk it creates an empty one for each record.
SMALLEST_FILE = 512 * 1024
# On a large disk it allocates 8 MiB at a time; on a small one, a file may use an eighth of a tenth
# of the disk.
LARGEST_STEP = 8 * 1024 * 1024
FILES_PER_DISK = 80
# The last systemd whose journald reads all entries of a datagram, and how the installed version is
# known: its library bears it. The directories are those of other distributions and of Debian.
LAST_TO_SPLIT = 252
LIBRARY_PREFIX = "libsystemd-shared-"
LIBRARY_DIRECTORIES = ("/usr/lib/systemd", f"/usr/lib/{sys.implementation._multiarch}/systemd")
# One datagram must fit the socket's send buffer (212,992 bytes by default, half of it bookkeeping).
MAX_DATAGRAM = 64 * 1024
# How often to check whether journald has received a record while a secret waits for that (`deny`).
RECEIVED_POLL_SECONDS = 0.00002

# unix(7): how many bytes have been sent and not received yet; and the reply for none.
_SIOCOUTQ = 0x5411
_NOTHING = bytes(4)


class JournalTransport:
    """The datagram socket of journald."""

    name = JOURNAL

    def __init__(
        self,
        path: str = SOCKET_PATH,
        directory: str = JOURNAL_DIRECTORY,
        runtime_directory: str = RUNTIME_DIRECTORY,
        library_directories: Sequence[str] = LIBRARY_DIRECTORIES,
    ) -> None:
        self._path = path
        self._socket: _socket.socket | None = None
        self.namespace = journal_namespace()
        suffix = f".{self.namespace}" if self.namespace else ""
        self._file = f"{directory}/{_machine_id()}{suffix}/system.journal"
        self._has_file = False
        self._runtime_directory = runtime_directory
        self.on_loss: Callable[[], None] = _nothing
        self._library_directories = library_directories
        self._splits = True
        self._libraries_changed: list[int] = []

    @property
    def max_batch(self) -> int:
        """The longest datagram, 0 for one record in each. Looks whether systemd has been
        upgraded."""
        if self._splits:
            changed = [_changed(directory) for directory in self._library_directories]
            if changed != self._libraries_changed:
                self._libraries_changed = changed
                versions = [one for directory in self._library_directories for one in _versions(directory)]
                self._splits = 0 < max(versions, default=0) <= LAST_TO_SPLIT
        return MAX_DATAGRAM if self._splits else 0

    def send(self, datagram: bytes, timeout_seconds: float) -> None:
        """Hand over a datagram. Raises OSError if journald does not accept it within
        `timeout_seconds`."""
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            if timeout_seconds <= 0:
                raise
            self._send_when_writable(datagram, timeout_seconds)
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN):
                raise
            # journald's socket was replaced: what was in the queue of the old one is lost.
            self.on_loss()
            self._connect()
            self._socket.send(datagram)

    def received(self, timeout_seconds: float) -> bool:
        """Whether journald has received everything, or does so within `timeout_seconds`."""
        import fcntl  # only if secrets wait for it

        if self._socket is None:
            return True
        deadline = monotonic() + timeout_seconds
        while fcntl.ioctl(self._socket, _SIOCOUTQ, _NOTHING) != _NOTHING:
            if monotonic() >= deadline:
                return False
            time.sleep(RECEIVED_POLL_SECONDS)
        try:  # the queue of a closed socket is empty, too
            self._socket.connect(self._path)
        except OSError:
            self.on_loss()
            self._socket.close()
            self._socket = None
            return False
        return True

    def can_write(self) -> bool:
        """Whether journald probably has room; True if it never had a file on disk, as nothing is
        known then."""
        try:
            if os.stat(self._file).st_size >= SMALLEST_FILE:
                self._has_file = True
                return True
        except OSError:
            pass
        try:
            runtime = os.statvfs(self._runtime_directory)
        except OSError:
            return True
        wanted = min(LARGEST_STEP, max(SMALLEST_FILE, runtime.f_blocks * runtime.f_frsize // FILES_PER_DISK))
        return not self._has_file or runtime.f_bavail * runtime.f_frsize >= wanted

    def _send_when_writable(self, datagram: bytes, timeout_seconds: float) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        deadline = monotonic() + timeout_seconds
        while (left := deadline - monotonic()) > 0:
            poll.poll(left * 1000)
            try:
                self._socket.send(datagram)
                return
            except BlockingIOError:
                continue
        raise BlockingIOError(errno.EAGAIN, "journald is not accepting records")

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        fresh = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        fresh.setblocking(False)
        try:
            fresh.connect(self._path)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh


def _nothing() -> None:
    pass


def journal_namespace() -> str | None:
    """The namespace of the unit's `LogNamespace=`: systemd mounts its sockets over those of the
    default journal."""
    roots = [fields[3] for fields in mounts() if fields[4] == SOCKETS_DIRECTORY]
    _, dot, name = roots[-1].rpartition("/")[2].partition(".") if roots else ("", "", "")
    return name if dot else None


def _changed(directory: str) -> int:
    """When a file was last added or removed; 0 without such a directory."""
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0


def _versions(directory: str) -> list[int]:
    """The versions of systemd that are installed there, as far as they are numbers."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        if name.startswith(LIBRARY_PREFIX):
            number = name.removeprefix(LIBRARY_PREFIX)[:3]
            found.append(int(number) if number.isdigit() else LAST_TO_SPLIT + 1)
    return found


def _machine_id() -> str:
    try:
        with open(MACHINE_ID_PATH, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return "unknown"


class StderrTransport:
    """The same records as JSON lines on standard error, for containers and laptops."""

    name = "stderr"
    namespace: str | None = None
    # One record is shorter than PIPE_BUF, so a pipe accepts all of it or nothing; two may be
    # longer.
    max_batch = 0
    _DESCRIPTOR = 2

    def __init__(self) -> None:
        self.on_loss: Callable[[], None] = _nothing

    def send(self, datagram: bytes, timeout_seconds: float) -> None:
        data = json.dumps(fields_of(datagram)).encode("ascii") + b"\n"
        poll = select.poll()
        poll.register(self._DESCRIPTOR, select.POLLOUT)
        while data:
            # An unread pipe must not block the broker. It stays in blocking mode, because other
            # processes share it.
            if not poll.poll(timeout_seconds * 1000):
                raise BlockingIOError(errno.EAGAIN, "standard error does not accept records")
            data = data[os.write(self._DESCRIPTOR, data[: select.PIPE_BUF]) :]

    def received(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - a pipe cannot tell
        return True

    def can_write(self) -> bool:
        return True


def fields_of(record: bytes) -> dict[str, str]:
    """The fields of one record in native format, as a dict. The inverse of
    `audit_records.field`."""
    fields = {}
    while record:
        line, _, rest = record.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[name.decode("ascii")] = value.decode("utf-8")
        record = rest
    return fields
