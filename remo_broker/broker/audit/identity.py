"""Peer identity: the process's unit, container and program, for audit records. Only one decision
depends on it: whether a peer of the credentials socket is systemd's own.

Read once per connection, when it is accepted. The socket refers to the process that connected
(`SO_PEERPIDFD`, Linux 6.5). If that process is still running after its /proc files have been read,
they were its own; if it has ended, the record says only that. Older kernels have no such reference:
there, the process must have the same start time before and after the read.

Getting that reference and opening those files is most of the cost, and many programs connect again
for each get. So the reference to the process that connected last and its files stay open. They
belong to that process, even after its pid was reused, and are read again for each connection. A
peer is that process if its reference has the same inode (Linux 6.9), or if it has the same pid and
connected while that process was known to run: see `Peer.since`.

A process can choose its own comm and exe, and the control groups below its own. So the unit and the
container recorded are the outermost ones: a container cannot pass for another by naming a group
like it.
"""

from __future__ import annotations

import _socket
import os
import re
import select

from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import field
from remo_broker.protocol.names import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable

    from remo_broker.broker.sockets.connection import Peer

# asm-generic/socket.h; Python has no constant for it.
SO_PEERPIDFD = 77
LONGEST = 128
# Read sizes. Memory is filled on allocation and again when freed, so a read asks for no more than
# the file usually has: a comm is 15 bytes and a newline, a line of cgroup some 60. A longer cgroup
# takes several reads.
COMM_SIZE = 32
READ_SIZE = 1024

# A few control groups and programs connect repeatedly, so their fields are cached. A cache is
# cleared when it is full.
KNOWN_PLACES = 64
KNOWN_COMMS = 256

GONE = b"REMO_PEER_GONE=1\n"
# Later than any turn of the loop.
NEVER = 1 << 62

_SOL_SOCKET = _socket.SOL_SOCKET
_OPEN = os.O_RDONLY | os.O_CLOEXEC

# Reading the executable of another user's process takes a capability.
_own_uid = os.geteuid()


def _inode_of_anonymous_files() -> int:
    anonymous = select.epoll()
    try:
        return os.fstat(anonymous.fileno()).st_ino
    finally:
        anonymous.close()


_shared_inode = _inode_of_anonymous_files()

_known_comms: dict[bytes, bytes] = {}
_known_places: dict[bytes, bytes] = {}

# Each matches one component of a control group's path.
_unit = re.compile(r"/([^/]+\.(?:service|scope))(?=/|$)")
_container = re.compile(
    r"/(?:(?:docker|podman|libpod|libpod-payload|nerdctl|crio|cri-containerd|containerd)-(?P<scope>[0-9a-f]{64})(?:\.scope)?"
    r"|(?P<id>[0-9a-f]{64})"
    r"|machine-(?P<machine>[^/]+)\.scope|systemd-nspawn@(?P<nspawn>[^/]+)\.service|lxc\.payload\.(?P<lxc>[^/]+))(?=/|$)"
)
_escape = re.compile(r"\\x([0-9a-f]{2})")
_user_manager = re.compile(r"user@\d+\.service").fullmatch
_session = re.compile(r"/user\.slice/user-(\d+)\.slice/session-[^/]+\.scope(?=/|$)").match


def peer_fields(connection: Accepted, peer: Peer, turn: int) -> bytes:
    """All record fields about the peer of `connection`. `turn` is the loop's."""
    last = _last
    pid, uid, gid = peer.pid, peer.uid, peer.gid
    found = last.again(uid) if pid == last.pid and peer.since > last.turn else b""
    if not found:
        found = peer_identity(connection, pid, uid, turn)
    if not found or found is not last.fields:
        return audit_records.peer_fields(pid, uid, gid) + found
    if uid != last.uid or gid != last.gid:
        last.uid, last.gid = uid, gid
        last.all_fields = audit_records.peer_fields(pid, uid, gid) + found
    return last.all_fields


def peer_identity(connection: Accepted, pid: int, uid: int, turn: int = NEVER) -> bytes:
    """The fields other than pid, uid and gid. `pid` is the peer's, 0 if it has none in this
    namespace."""
    if pid <= 0:
        return b""
    try:
        pidfd = connection.getsockopt(_SOL_SOCKET, SO_PEERPIDFD)
    except ProcessLookupError:
        return GONE
    except OSError:
        return _by_start_time(pid, uid)
    last = _last
    inode = os.fstat(pidfd).st_ino
    if inode == last.inode:
        os.close(pidfd)
    else:
        last.close()
        last.hold(pidfd, pid, 0 if inode == _shared_inode else inode, turn)
    try:
        last.open()
        found = last.read(uid)
    except OSError:  # it has ended, or this process may not look, or has no descriptor left
        found = b""
        if not last.ended():
            last.close()
            return b""
    if last.ended():
        last.close()
        return GONE
    return found


class _Process:
    """The process that connected last: its pidfd and its /proc files, open."""

    __slots__ = (
        "_cgroup",
        "_comm",
        "_pidfd",
        "_poll",
        "_was",
        "all_fields",
        "fields",
        "gid",
        "inode",
        "pid",
        "turn",
        "uid",
    )

    def __init__(self) -> None:
        self._pidfd = self._comm = self._cgroup = -1
        self._forget()

    def _forget(self) -> None:
        self._poll: Callable[[int], list[tuple[int, int]]] | None = None
        self._was: tuple[bytes, bytes, bytes] | None = None
        """What was read of it last."""
        self.pid = -1
        """-1 if there is none."""
        self.inode = 0
        """Its pidfd's; 0 if all pidfds have the same."""
        self.turn = NEVER
        """The loop's turn since which it is known to run."""
        self.fields = b""
        """What followed from what was read of it."""
        self.uid = self.gid = -1
        self.all_fields = b""
        """`fields` with its pid and these credentials."""

    def hold(self, pidfd: int, pid: int, inode: int, turn: int) -> None:
        self._pidfd, self.pid, self.inode, self.turn = pidfd, pid, inode, turn

    def open(self) -> None:
        """Open its files, if they are not. Raises OSError if it has none any more."""
        if self._cgroup < 0:
            self._comm = os.open(b"/proc/%d/comm" % self.pid, _OPEN)
            self._cgroup = os.open(b"/proc/%d/cgroup" % self.pid, _OPEN)

    def ended(self) -> bool:
        """Whether it has ended (zombies included): its pid may have been reused."""
        poll = self._poll
        if poll is None:
            poll = self._poll = _poll_of(self._pidfd)
        return bool(poll(0))

    def again(self, uid: int) -> bytes:
        """Its fields, read again; empty if it has ended."""
        try:
            found = self.read(uid)
        except OSError:
            return b""
        return b"" if self.ended() else found

    def read(self, uid: int) -> bytes:
        """Its fields, which are its own if it has not `ended` afterwards. Raises OSError."""
        comm = os.pread(self._comm, COMM_SIZE, 0)
        text = part = os.pread(self._cgroup, READ_SIZE, 0)
        while len(part) == READ_SIZE:
            part = os.pread(self._cgroup, READ_SIZE, len(text))
            text += part
        was = (comm, text, _executable(self.pid) if _own_uid in (uid, 0) else b"")
        if was != self._was:
            self._was = was
            self.fields = _fields(*was, self.inode)
            self.uid = -1
        return self.fields

    def close(self) -> None:
        for descriptor in (self._pidfd, self._comm, self._cgroup):
            if descriptor >= 0:
                os.close(descriptor)
        self._pidfd = self._comm = self._cgroup = -1
        self._forget()


_last = _Process()


def _by_start_time(pid: int, uid: int) -> bytes:
    process = _Process()
    try:
        before = _start_time(pid)
        process.hold(-1, pid, 0, NEVER)
        process.open()
        found = process.read(uid)
        return found if before == _start_time(pid) else GONE
    except (FileNotFoundError, ProcessLookupError):
        return GONE
    except OSError:
        return b""
    finally:
        process.close()


def _start_time(pid: int) -> int:
    """In ticks since boot. Raises ProcessLookupError for an ended process, zombies included."""
    with open(b"/proc/%d/stat" % pid, "rb") as file:
        # The name, in parentheses, may contain any character.
        fields = file.read().rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in b"ZX":
        raise ProcessLookupError
    return int(fields[19])


def _fields(comm: bytes, cgroup: bytes, executable: bytes, inode: int) -> bytes:
    named = _known_comms.get(comm)
    if named is None:
        named = b"REMO_PEER_COMM=%b\n" % _shown(comm.removesuffix(b"\n"))
        _remember(_known_comms, KNOWN_COMMS, comm, named)
    placed = _known_places.get(cgroup)
    if placed is None:
        placed = b"".join(field(name, printable(value, LONGEST)) for name, value in places(cgroup))
        _remember(_known_places, KNOWN_PLACES, cgroup, placed)
    found = named + placed
    if executable:
        found += b"REMO_PEER_EXE=%b\n" % _shown(executable)
    if inode:
        found += b"REMO_PEER_PIDFD_INODE=%d\n" % inode
    return found


def _executable(pid: int) -> bytes:
    """The path of its program; empty if the kernel does not tell."""
    try:
        return os.readlink(b"/proc/%d/exe" % pid)
    except OSError:
        return b""


def _remember(known: dict[bytes, bytes], at_most: int, read: bytes, fields: bytes) -> None:
    if len(known) >= at_most:
        known.clear()
    known[read] = fields


def places(cgroup: bytes) -> list[tuple[str, str]]:
    """A process's unit and container, as fields, from the text of its /proc/PID/cgroup."""
    path = _systemd_path(cgroup)
    if "/../" in path:  # outside this control group namespace
        return []
    container = _container.search(path)
    # The container itself controls the groups below its own.
    units = _unit.findall(path, 0, container.end() if container else len(path))
    found = []
    if units:
        found.append(("REMO_PEER_UNIT", units[0]))
        if len(units) > 1 and _user_manager(units[0]):
            found.append(("REMO_PEER_USER_UNIT", units[-1]))
        session = _session(path)
        if session:
            # Sessions are numbered: only their owner tells the next login's from this one's.
            found.append(("REMO_PEER_OWNER_UID", session[1]))
    if container:
        name = next(one for one in container.groups() if one)
        # Escaped as by systemd-escape(1), except that a dash in a machine's name stays a dash.
        found.append(("REMO_PEER_CONTAINER", _escape.sub(lambda escape: chr(int(escape[1], 16)), name)))
    return found


def runs_in(pid: int, unit: str) -> bool:
    """Whether a process runs in the control group of `unit`; false if it has ended."""
    try:
        with open(b"/proc/%d/cgroup" % pid, "rb") as file:
            cgroup = file.read()
        with open("/proc/self/cgroup", "rb") as file:
            return is_of(cgroup, unit, file.read())
    except OSError:
        return False


def is_of(cgroup: bytes, unit: str, own: bytes) -> bool:
    """Whether the text of a /proc/PID/cgroup is of a process in the control group of `unit`. If
    this process, whose text is `own`, is in the root group, nothing assigns groups to units, and
    any other process there counts as well."""
    path = _systemd_path(cgroup)
    outermost = next((one for one in path.split("/") if one and not one.endswith(".slice")), "")
    # systemd adds an underscore to names that the kernel could use too, such as `cpu.service`.
    return outermost.removeprefix("_") == unit or path == _systemd_path(own) == "/"


def _systemd_path(cgroup: bytes) -> str:
    """The path in the hierarchy that systemd manages: the unified one, or systemd's own if there
    are several. A container's systemd uses the unified one even if the host's uses its own, where
    the container's processes are in the root group, or in one that names nothing, such as the
    `payload` of a container within."""
    unified = own = "/"
    for line in cgroup.decode("utf-8", "surrogateescape").split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "name=systemd":
            own = path
        elif number == "0":
            unified = path
    if own == "/" or (_names(unified) and not _names(own)):
        return unified
    return own


def _names(path: str) -> bool:
    return bool(_unit.search(path) or _container.search(path))


def _poll_of(pidfd: int) -> Callable[[int], list[tuple[int, int]]]:
    poll = _polls.get(pidfd)
    if poll is None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poll = _polls[pidfd] = poller.poll
    return poll


_polls: dict[int, Callable[[int], list[tuple[int, int]]]] = {}
"""For each number that a pidfd has had, the call that polls it; few numbers recur."""


def _shown(name: bytes) -> bytes:
    return printable(name.decode("utf-8", "surrogateescape"), LONGEST).encode("ascii")
