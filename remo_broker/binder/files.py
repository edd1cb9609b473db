"""A project's two sockets and the directories around them, as files.

    SOCKET_DIR/PROJECT.sock               mode 0660: for a group of users on the host
    SOCKET_DIR/mount/                     mode 0750: the gate; no other user on the host passes it
    SOCKET_DIR/mount/PROJECT/             mode 0755: mounted into containers as a directory,
                                          so that a new socket shows up there
    SOCKET_DIR/mount/PROJECT/broker.sock  mode 0666: for every process that has the mount
    SOCKET_DIR/mount/.PROJECT             the directory's owner: the project that was last served there

A container may still have the directory of an earlier registration mounted. It must not find the
sockets of another registration there. So a directory is reused only for the same owner; any other
owner gets a new one, and the old mount shows a removed directory.

Everything here belongs to the user and group of the process, and is created with its final mode, so
no other user can open it in between.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from remo_broker.protocol import paths

# The same as systemd's. When the queue is full, connect() waits, so a restart under load refuses no
# client.
BACKLOG = 4096
SOCKET_MODE = 0o660
GATE_MODE = 0o750
MOUNT_DIRECTORY_MODE = 0o755
MOUNT_SOCKET_MODE = 0o666
# A marker holds the project directory of the former registration; this is Linux's longest path.
MAX_OWNER = 4096

CLIENT = "client"
MOUNT = "mount"
KINDS = (CLIENT, MOUNT)


class Unavailable(Exception):
    """A socket cannot be made. The text says why and how to fix it."""


def socket_path(socket_dir: str, kind: str, project: str) -> str:
    if kind == CLIENT:
        return paths.project_socket(socket_dir, project)
    return paths.mount_socket(socket_dir, project)


def make(socket_dir: str, kind: str, project: str, owner: str, *, renew: bool) -> _socket.socket:
    """Make and return the listening socket of `kind`. `owner` is the registered project's
    directory. `renew`: the registration is new, so do not keep a directory whose owner is not known,
    as one that systemd made. Raises `Unavailable`."""
    try:
        if kind == MOUNT:
            _make_mount_directory(socket_dir, project, owner, renew=renew)
        return listen(socket_path(socket_dir, kind, project), SOCKET_MODE if kind == CLIENT else MOUNT_SOCKET_MODE)
    except OSError as error:
        path = error.filename or socket_path(socket_dir, kind, project)
        raise Unavailable(f"{path}: {os.strerror(error.errno or 0)}") from None


def remove(socket_dir: str, project: str, owner: str) -> None:
    """Remove both socket files of an unregistered project, unless a process still listens on them.
    `owner` is the directory of the project that was registered. Raises OSError.

    The broker may have given up waiting for this, and another project may have been registered
    since: what has a marker is left to the owner that it names."""
    for kind in KINDS:
        path = socket_path(socket_dir, kind, project)
        if _kind(path) == stat.S_IFSOCK and _is_dead(path):
            os.unlink(path)
    marker = _marker(socket_dir, project)
    if _kind(paths.mount_directory(socket_dir, project)) == stat.S_IFDIR and _kind(marker) is None:
        _write_marker(marker, owner)


def listen(path: str, mode: int) -> _socket.socket:
    """A listening socket at `path`. Replaces a socket without a listener. Raises `Unavailable`."""
    listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listening.setblocking(False)
    before = os.umask(0o777 & ~mode)
    try:
        try:
            listening.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _clear(path)
            listening.bind(path)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        # Python reports a path that is too long without an errno.
        raise Unavailable(f"cannot listen on {path}: {error.strerror or error}") from None
    except Unavailable:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _clear(path: str) -> None:
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        raise Unavailable(
            f"cannot listen on {path}: it is a directory; container engines make one where the source of a mount is "
            f"missing. Stop the container and remove it: rmdir {path}"
        )
    if kind != stat.S_IFSOCK:
        raise Unavailable(f"cannot listen on {path}: it is not a socket; remove it: rm {path}")
    if not _is_dead(path):
        raise Unavailable(
            f"cannot listen on {path}: a socket unit or another process listens on it; stop that "
            "('systemctl list-sockets' shows units)"
        )
    os.unlink(path)


def _is_dead(path: str) -> bool:
    """Whether `path` is a socket without a listener."""
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED
    finally:
        probe.close()


def _make_mount_directory(socket_dir: str, project: str, owner: str, *, renew: bool) -> None:
    gate = os.path.join(socket_dir, paths.MOUNT_DIR)
    _make_directory(gate, GATE_MODE)
    directory, marker = paths.mount_directory(socket_dir, project), _marker(socket_dir, project)
    before = _read_marker(marker)
    # Another owner's not even at a start: a registration that failed may have had the directory since.
    if _kind(directory) == stat.S_IFDIR and (before != owner if before is not None else renew):
        inside = paths.mount_socket(socket_dir, project)
        if _kind(inside) is not None:
            # Not one that listens: passed to the next broker, it would be served wherever it is mounted.
            _clear(inside)
        try:
            os.rmdir(directory)
        except OSError as error:
            raise Unavailable(
                f"{directory}: {os.strerror(error.errno or 0)}; it belonged to another registration. "
                f"Remove it: rm -r {directory}"
            ) from None
    if before != owner:
        _write_marker(marker, owner)
    _make_directory(directory, MOUNT_DIRECTORY_MODE)


def _make_directory(path: str, mode: int) -> None:
    before = os.umask(0o777 & ~mode)
    try:
        os.mkdir(path)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise Unavailable(f"{path}: it is not a directory; remove it: rm {path}") from None
        if found.st_uid != os.geteuid():
            # As the directories of an earlier version, whose user could replace the sockets.
            raise Unavailable(f"{path}: it belongs to uid {found.st_uid}; remove it: rm -r {path}") from None
        if found.st_mode & ~mode & stat.S_IRWXO:
            # A container engine makes the source of a mount, and what is above, open to all users.
            raise Unavailable(
                f"{path}: it is open to other users; close it: chgrp {os.getegid()} {path} && chmod {mode:04o} {path}"
            ) from None
    finally:
        os.umask(before)


def _marker(socket_dir: str, project: str) -> str:
    # No project name begins with a dot.
    return os.path.join(socket_dir, paths.MOUNT_DIR, f".{project}")


def _write_marker(marker: str, owner: str) -> None:
    if _kind(marker) is not None:
        os.unlink(marker)
    descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.fsencode(owner))
    finally:
        os.close(descriptor)


def _read_marker(marker: str) -> str | None:
    try:
        descriptor = os.open(marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.fsdecode(os.read(descriptor, MAX_OWNER))
    finally:
        os.close(descriptor)


def _kind(path: str) -> int | None:
    """The file type of `path`, without following symlinks; None if nothing is there."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None
