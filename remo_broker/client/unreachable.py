"""Why connecting to a socket failed: whether it exists, who may use it, and what starts it."""

from __future__ import annotations

import errno
import os
import stat

from remo_broker.client.errors import Unreachable
from remo_broker.protocol import paths

# The kernel's limit for the path of a Unix socket, without the terminating NUL.
LONGEST_SOCKET_PATH = 107


def unreachable(path: str, kind: str, error: OSError) -> Unreachable:
    """The exception for a failed connect.

    `kind` is the name of the host's socket, empty for a project's socket.

    A path with the name of a host socket counts as one, even if the caller expected a project's
    socket.
    """
    if os.path.basename(path) in (paths.ADMIN_SOCKET, paths.STATUS_SOCKET):
        kind = os.path.basename(path)
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        return Unreachable(
            path,
            f"{path}: longer than {LONGEST_SOCKET_PATH} bytes, the limit for a socket's path",
            hint="mount the socket's directory at a shorter path",
        )
    found: os.stat_result | None = None
    try:
        # What did not exist may exist by now: the broker replaces a socket without a listener.
        if error.errno != errno.ENOENT:
            found = os.stat(path)
    except FileNotFoundError:
        pass
    except OSError as unseen:
        why = os.strerror(unseen.errno or 0)
        return Unreachable(path, f"{path}: {why}{_nearest(path)}", hint=_permission_hint(kind))
    if found is None:
        return Unreachable(path, f"{path} does not exist{_nearest(path)}", hint=_start_hint(path, kind), temporary=True)
    who = _mode_and_owner(found)
    if stat.S_ISDIR(found.st_mode):
        # Container engines create a directory if the source of a mount is missing.
        return Unreachable(
            path,
            f"{path} is a directory, not a socket",
            hint="on the host, remove the directory with rmdir, then start the broker's socket and this container again",
        )
    if not stat.S_ISSOCK(found.st_mode):
        return Unreachable(path, f"{path} is not a socket ({who})", hint="give the broker's socket with --socket")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unreachable(path, f"{path}: permission denied ({who}; you are {_self()})", hint=_permission_hint(kind))
    if error.errno == errno.ECONNREFUSED:
        if found.st_nlink == 0:  # the inode survives only in this mount
            return Unreachable(
                path,
                f"{path} was replaced on the host; this mount still shows the old socket",
                hint="restart this container; mount the socket's directory to avoid this",
                temporary=False,
            )
        return Unreachable(
            path, f"{path}: nothing listens on this socket ({who})", hint=_start_hint(path, kind), temporary=True
        )
    return Unreachable(path, f"{path} ({who}): {os.strerror(error.errno or 0)}")


def _start_hint(path: str, kind: str) -> str:
    if not kind:
        return "run 'remo-brokerctl register' or 'reload' on the host, or mount the project's socket here"
    if os.path.basename(path) == kind:
        return f"run 'systemctl enable --now remo-broker-{kind}et', or give another socket with --socket"
    return f"give the broker's {kind} with --socket; the default is {paths.SOCKET_DIR}/{kind}"


def _permission_hint(kind: str) -> str:
    if kind == paths.ADMIN_SOCKET:
        return "use sudo, or join the group remo-broker-admin"
    if kind == paths.STATUS_SOCKET:
        return "use sudo; this socket is for remo-broker-bus only"
    return "join the group that owns the socket, or mount the project's directory below /run/remo-broker/mount instead"


def _nearest(path: str) -> str:
    """Name the directory of the path that is missing or that this user may not search."""
    directory = os.path.dirname(os.path.abspath(path))
    while directory != "/":
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            parent = os.path.dirname(directory)
            if os.path.isdir(parent):
                return f" (nor does {directory})"
            directory = parent
        except OSError:
            directory = os.path.dirname(directory)
        else:
            if not os.access(directory, os.X_OK):
                return f" ({directory} is {_mode_and_owner(found)}; you are {_self()})"
            return ""
    return ""


def access_to(directory: str) -> str:
    """Mode and owner of an existing directory, and the current user."""
    return f"{_mode_and_owner(os.stat(directory))}; you are {_self()}"


def _mode_and_owner(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):04o}, {user_name(found.st_uid)}:{_group_name(found.st_gid)}"


def _self() -> str:
    return user_name(os.geteuid())


def user_name(uid: int) -> str:
    """The user's name, or the uid if it has no name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
