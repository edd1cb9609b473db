"""Why a socket could not be connected to, in words that help: does it exist, who may use it, what starts it."""

from __future__ import annotations

import errno
import os
import stat

from remo_broker.client.errors import Unreachable
from remo_broker.protocol import paths

# The kernel's own limit for the path of a Unix socket, its closing NUL aside.
LONGEST_SOCKET_PATH = 107


def unreachable(path: str, kind: str, error: OSError) -> Unreachable:
    """The exception for a failed connect. `kind` is what the wanted socket is called on a host, empty for a project's.

    A socket of the host is known by its name too: somebody may have given it where a project's is wanted.
    """
    if os.path.basename(path) in (paths.ADMIN_SOCKET, paths.STATUS_SOCKET):
        kind = os.path.basename(path)
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        return Unreachable(path, f"{path}: longer than the {LONGEST_SOCKET_PATH} bytes that a socket's path may have")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return Unreachable(path, f"{path} does not exist{_nearest(path)}; {_start_hint(path, kind)}", temporary=True)
    except OSError as unseen:
        return Unreachable(path, f"{path}: {os.strerror(unseen.errno or 0)}{_nearest(path)}; {_permission_hint(kind)}")
    who = _mode_and_owner(found)
    if not stat.S_ISSOCK(found.st_mode):
        return Unreachable(path, f"{path} is no socket ({who}); give the broker's with --socket")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unreachable(path, f"{path} is not for you ({who}; you are {_self()}); {_permission_hint(kind)}")
    if error.errno == errno.ECONNREFUSED:
        return Unreachable(
            path, f"{path} exists ({who}), but nobody listens on it; {_start_hint(path, kind)}", temporary=True
        )
    return Unreachable(path, f"{path} ({who}): {os.strerror(error.errno or 0)}")


def _start_hint(path: str, kind: str) -> str:
    if not kind:
        return "register the project on the host with 'remo-brokerctl register', or mount its socket here"
    if os.path.basename(path) == kind:
        return f"start it with 'systemctl enable --now remo-broker-{kind}et', or give another with --socket"
    return f"give the broker's {kind} with --socket; it is {paths.SOCKET_DIR}/{kind} on a host"


def _permission_hint(kind: str) -> str:
    if kind == paths.ADMIN_SOCKET:
        return "use sudo, or join the group remo-broker-admin"
    if kind == paths.STATUS_SOCKET:
        return "it is for remo-broker-bus only; use sudo"
    return "run as a user of that group, or have an operator open the socket to you"


def _nearest(path: str) -> str:
    """Where the path ends for us: the directory that is missing or shut."""
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


def who_may(directory: str) -> str:
    """Who may look into a directory that exists, and who is asking."""
    return f"{_mode_and_owner(os.stat(directory))}; you are {_self()}"


def _mode_and_owner(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):04o}, {_user(found.st_uid)}:{_group(found.st_gid)}"


def _self() -> str:
    return _user(os.geteuid())


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
