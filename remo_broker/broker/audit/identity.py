"""Peer identity: the process's unit, container and program, for audit records and never for a
decision.

Read once per connection, when it is accepted. The socket refers to the process that connected
(`SO_PEERPIDFD`, Linux 6.5). If that process is still running after its /proc files have been read,
they were its own; if it has ended, the record says only that. Older kernels have no such reference:
there, the process must have the same start time before and after the read.

A process can choose its own comm and exe, and the control groups below its own. So the unit and the
container recorded are the outermost ones: a container cannot pass for another by naming a group
like it.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct

from remo_broker.protocol import records
from remo_broker.protocol.names import printable
from remo_broker.protocol.records import field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns

# asm-generic/socket.h; Python has no constant for it.
SO_PEERPIDFD = 77
LONGEST = 128
# A path of 4,096 bytes in each of a dozen hierarchies would be longer; this does not occur in
# practice.
READ_SIZE = 16_384

# A few control groups connect repeatedly, so their parsed texts are cached; the cache is cleared
# when it is full.
KNOWN_PLACES = 64

GONE = b"REMO_PEER_GONE=1\n"

_known_places: dict[bytes, bytes] = {}

# Each matches one component of a control group's path.
_unit = re.compile(r"/([^/]+\.(?:service|scope))(?=/|$)")
_container = re.compile(
    r"/(?:(?:docker|podman|libpod|libpod-payload|crio|cri-containerd|containerd)-(?P<scope>[0-9a-f]{64})(?:\.scope)?"
    r"|(?P<id>[0-9a-f]{64})"
    r"|machine-(?P<machine>[^/]+)\.scope|systemd-nspawn@(?P<nspawn>[^/]+)\.service|lxc\.payload\.(?P<lxc>[^/]+))(?=/|$)"
)
_escape = re.compile(r"\\x([0-9a-f]{2})")
_user_manager = re.compile(r"user@\d+\.service").fullmatch

_int = struct.Struct("i")


def peer_fields(connection: Accepted, pid: int, uid: int, gid: int) -> bytes:
    """All record fields about the peer of `connection`; the other arguments are its credentials."""
    return records.peer_fields(pid, uid, gid) + peer_identity(connection, pid)


def peer_identity(connection: Accepted, pid: int) -> bytes:
    """The fields other than pid, uid and gid. `pid` is the peer's, 0 if it has none in this
    namespace."""
    if pid <= 0:
        return b""
    try:
        (pidfd,) = _int.unpack(connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _int.size))
    except ProcessLookupError:
        return GONE
    except OSError:
        return _by_start_time(pid)
    try:
        found = _look(pid)
        if found is None or _ended(pidfd):
            return GONE
        return found + _inode(pidfd)
    finally:
        os.close(pidfd)


def _by_start_time(pid: int) -> bytes:
    before = _start_time(pid)
    found = _look(pid)
    if found is None or before is None or before != _start_time(pid):
        return GONE
    return found


def _start_time(pid: int) -> bytes | None:
    """In ticks since boot; None for a process that has ended or is a zombie."""
    stat = _read(pid, b"stat")
    if stat is None:
        return None
    # The name, in parentheses, may contain any character.
    fields = stat.rpartition(b")")[2].split()
    return None if len(fields) < 20 or fields[0] in b"ZX" else fields[19]


def _look(pid: int) -> bytes | None:
    """The fields from /proc; None if it has no such process."""
    comm = _read(pid, b"comm")
    if comm is None:
        return None
    found = b"REMO_PEER_COMM=%b\n" % _shown(comm.removesuffix(b"\n"))
    cgroup = _read(pid, b"cgroup")
    if cgroup is not None:
        known = _known_places.get(cgroup)
        if known is None:
            known = b"".join(field(name, printable(value, LONGEST)) for name, value in places(cgroup))
            if len(_known_places) >= KNOWN_PLACES:
                _known_places.clear()
            _known_places[cgroup] = known
        found += known
    try:
        executable = os.readlink(b"/proc/%d/exe" % pid)
    except OSError:  # usually because it is another user's
        return found
    return b"%bREMO_PEER_EXE=%b\n" % (found, _shown(executable))


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
    if container:
        name = next(one for one in container.groups() if one)
        # Escaped as by systemd-escape(1), except that a dash in a machine's name stays a dash.
        found.append(("REMO_PEER_CONTAINER", _escape.sub(lambda escape: chr(int(escape[1], 16)), name)))
    return found


def _systemd_path(cgroup: bytes) -> str:
    """The path in the hierarchy that systemd manages: the unified one, or systemd's own if there
    are several."""
    found = b""
    for line in cgroup.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if controllers == b"name=systemd":
            return path.decode("utf-8", "surrogateescape")
        if number == b"0":
            found = path
    return found.decode("utf-8", "surrogateescape")


def _ended(pidfd: int) -> bool:
    """Whether the process has ended (zombies included): its pid may have been reused."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


_shared_inode: list[int] = []


def _inode(pidfd: int) -> bytes:
    """An inode number that no other process of this boot has; empty on kernels before 6.9, where
    all pidfds share one."""
    if not _shared_inode:
        anonymous = select.epoll()
        _shared_inode.append(os.fstat(anonymous.fileno()).st_ino)
        anonymous.close()
    inode = os.fstat(pidfd).st_ino
    return b"" if inode == _shared_inode[0] else b"REMO_PEER_PIDFD_INODE=%d\n" % inode


def _read(pid: int, file: bytes) -> bytes | None:
    try:
        descriptor = os.open(b"/proc/%d/%b" % (pid, file), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, READ_SIZE)
    except OSError:  # the process has just ended
        return None
    finally:
        os.close(descriptor)


def _shown(name: bytes) -> bytes:
    return printable(name.decode("utf-8", "surrogateescape"), LONGEST).encode("ascii")
