"""Who connected: the process's unit, container and program, for the record and never for a decision.

Learned once a connection, when it is made. The socket holds on to the process that connected (`SO_PEERPIDFD`, Linux 6.5), so what
/proc says under its number is its own as long as it has not ended by the end of the look; where it has, nothing is said but
that. Older kernels have no such hold: there the process must have had the same start time before and after the look.

What a process may have chosen for itself is its comm and exe, and whatever control groups it made below its own. So the unit
and the container are the outermost ones: a container cannot pass for another by naming a group like one.
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
    from _socket import socket as Accepted  # noqa: N812 - what accept makes

# asm-generic/socket.h; Python has no name for it.
SO_PEERPIDFD = 77
LONGEST = 128
# A path of 4,096 bytes in each of a dozen hierarchies would be more; nobody has such.
READ_SIZE = 16_384

# A few control groups connect again and again: what their texts say is remembered, all of it forgotten when there are too many.
KNOWN_PLACES = 64

GONE = b"REMO_PEER_GONE=1\n"

_known_places: dict[bytes, bytes] = {}

# One part of a control group's path each.
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
    """All that a record says of the peer of `connection`, whose credentials the others are."""
    return records.peer_fields(pid, uid, gid) + peer_identity(connection, pid)


def peer_identity(connection: Accepted, pid: int) -> bytes:
    """The fields beside pid, uid and gid. `pid` is the peer's, 0 where it has none in this namespace."""
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
    """In ticks since the boot; None for a process that has ended or is a zombie."""
    stat = _read(pid, b"stat")
    if stat is None:
        return None
    # The name, in parentheses, may hold anything.
    fields = stat.rpartition(b")")[2].split()
    return None if len(fields) < 20 or fields[0] in b"ZX" else fields[19]


def _look(pid: int) -> bytes | None:
    """What /proc tells; None where it knows no such process."""
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
    except OSError:  # of another user, mostly
        return found
    return b"%bREMO_PEER_EXE=%b\n" % (found, _shown(executable))


def places(cgroup: bytes) -> list[tuple[str, str]]:
    """The unit and the container that the text of /proc/PID/cgroup puts a process in, as fields."""
    path = _systemd_path(cgroup)
    if "/../" in path:  # of another tree
        return []
    container = _container.search(path)
    # What lies below a container's group is the container's own word.
    units = _unit.findall(path, 0, container.end() if container else len(path))
    found = []
    if units:
        found.append(("REMO_PEER_UNIT", units[0]))
        if len(units) > 1 and _user_manager(units[0]):
            found.append(("REMO_PEER_USER_UNIT", units[-1]))
    if container:
        name = next(one for one in container.groups() if one)
        # Escaped as by systemd-escape(1), but that a dash in a machine's name stays one.
        found.append(("REMO_PEER_CONTAINER", _escape.sub(lambda escape: chr(int(escape[1], 16)), name)))
    return found


def _systemd_path(cgroup: bytes) -> str:
    """The path in the hierarchy that systemd manages: the unified one, or its own where there are several."""
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
    """Whether the process has, be it a zombie: its number may be another's by now."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


_shared_inode: list[int] = []


def _inode(pidfd: int) -> bytes:
    """A number that no other process of this boot has; nothing on kernels before 6.9, where all pidfds share one."""
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
    except OSError:  # it has just ended
        return None
    finally:
        os.close(descriptor)


def _shown(name: bytes) -> bytes:
    return printable(name.decode("utf-8", "surrogateescape"), LONGEST).encode("ascii")
