"""Open a manifest safely: a project can put anything where its manifest should be.

- The path is walked one component at a time from the project's directory. None may be a symlink, so
  the file is inside that directory. What is above it is the operator's business.
- A file is first inspected through an `O_PATH` descriptor, which opens nothing: no device acts, no
  FIFO waits for a writer. Only a regular file is then opened, through that same descriptor, so that
  it is the inspected one. `O_NONBLOCK` makes a leased file fail instead of waiting for its lease.
- It is read whole, and must be the same before and after.

Messages name the file by its path in the project's directory. Only if permission is missing do they
give the full path, in the command that fixes it.
"""

from __future__ import annotations

import errno
import os
import stat

from remo_broker.manifest.constants import MAX_BYTES, SEARCH
from remo_broker.manifest.fault import ManifestError, unreadable
from remo_broker.protocol.codes import Code

PROJECT_PATH = "project_path"
"""How messages name the project's directory: the field it comes from."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symlink",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_PLAIN = "put the manifest itself there, as a regular file"
_AGAIN = "let what writes it finish, then try again"


def read(project_path: str) -> tuple[str, bytes]:
    """The manifest of the project in `project_path`: the path it was found at, and its bytes.

    Raises `ManifestError`: `manifest_not_found` or `manifest_unreadable`.
    """
    if not project_path.startswith("/") or "\0" in project_path:
        raise ManifestError(Code.MANIFEST_NOT_FOUND, f"{PROJECT_PATH}: it must be an absolute path")
    # A trailing slash would follow a symlink before it.
    project_path = project_path.rstrip("/") or "/"
    with _Descriptor(_open_project(project_path)) as project:
        for folder, name in SEARCH:
            content = _find(project, project_path, folder, name)
            if content is not None:
                return f"{project_path}/{folder}/{name}", content
    raise _none()


def read_place(project_path: str, folder: str, name: str) -> bytes:
    """The bytes of one of the places that `read` searches, under the same rules.

    Raises `ManifestError`.
    """
    with _Descriptor(_open_project(project_path)) as project:
        content = _find(project, project_path, folder, name)
    if content is None:
        raise _none()
    return content


def _none() -> ManifestError:
    places = ", ".join("/".join(parts) for parts in SEARCH)
    return ManifestError(Code.MANIFEST_NOT_FOUND, f"no manifest in the project's directory; it may be one of {places}")


def _find(project: int, project_path: str, folder: str, name: str) -> bytes | None:
    """The content of `folder/name` in the project's directory; None if it does not exist."""
    place = f"{folder}/{name}"
    path = f"{project_path}/{place}"
    inside = _look(folder, project, folder, os.path.dirname(path))
    if inside is None:
        return None
    with _Descriptor(inside):
        _require(inside, stat.S_IFDIR, folder, "make it a directory, or take it away")
        file = _look(name, inside, place, path)
    if file is None:
        return None
    with _Descriptor(file):
        return _content(file, place, path, os.fstat(project).st_uid)


class _Descriptor:
    """A descriptor that is closed at the end of a `with`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> int:
        return self.number

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def _open_project(project_path: str) -> int:
    try:
        project = os.open(project_path, _LOOK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise ManifestError(Code.MANIFEST_NOT_FOUND, f"{PROJECT_PATH}: there is no such directory") from None
        raise _refused(error, PROJECT_PATH, project_path) from None
    try:
        _require(project, stat.S_IFDIR, PROJECT_PATH, "give the path of the project's directory itself")
    except ManifestError:
        os.close(project)
        raise
    return project


def _look(name: str, directory: int, place: str, path: str) -> int | None:
    """An `O_PATH` descriptor for `name` in `directory`, of any type; None if it does not exist."""
    try:
        return os.open(name, _LOOK, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(error, place, path) from None


def _require(descriptor: int, kind: int, place: str, advice: str) -> os.stat_result:
    found = os.fstat(descriptor)
    actual = stat.S_IFMT(found.st_mode)
    if actual != kind:
        raise unreadable(place, f"{_KINDS.get(actual, 'something unknown')}, not {_KINDS[kind]}", advice)
    return found


def _content(file: int, place: str, path: str, owner: int) -> bytes:
    """The bytes behind the `O_PATH` descriptor `file`. `owner` owns the project's directory."""
    seen = _require(file, stat.S_IFREG, place, _PLAIN)
    if seen.st_nlink > 1 and seen.st_uid != owner:
        # A second name for another user's file: the project cannot read it and would have us read
        # it.
        raise unreadable(place, "a hard link to a file of another user than the project's directory", _PLAIN)
    try:
        opened = os.open(f"/proc/self/fd/{file}", _OPEN)
    except OSError as error:
        raise _refused(error, place, path) from None
    with _Descriptor(opened):
        try:
            return read_unchanged(opened, place)
        except OSError as error:
            raise _refused(error, place, path) from None


def read_unchanged(file: int, place: str) -> bytes:
    before = os.fstat(file)
    if before.st_size > MAX_BYTES:
        raise unreadable(place, f"larger than {MAX_BYTES} bytes", "make it smaller")
    if before.st_size and _first_hole(file) < before.st_size:
        raise unreadable(place, "a sparse file", "write it again, without holes")
    content = b""
    # Reading one byte more than expected shows that it grew.
    while len(content) <= before.st_size and (part := os.read(file, before.st_size + 1 - len(content))):
        content += part
    after = os.fstat(file)
    if len(content) != before.st_size or any(
        getattr(before, field) != getattr(after, field) for field in ("st_size", "st_mtime_ns", "st_ctime_ns")
    ):
        raise unreadable(place, "it changed while it was read", _AGAIN)
    return content


def _first_hole(file: int) -> int:
    """The offset of the first hole; the end of the file counts as one."""
    hole = os.lseek(file, 0, os.SEEK_HOLE)
    os.lseek(file, 0, os.SEEK_SET)
    return hole


def _refused(error: OSError, place: str, path: str) -> ManifestError:
    """The error for an open that failed. `path` is its full path."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return _denied(place, path)
    if error.errno == errno.EWOULDBLOCK:
        return unreadable(place, "another program holds a lease on it", "end that program, then try again")
    if error.errno == errno.ENOENT and place != PROJECT_PATH:
        return unreadable(place, "/proc is not mounted, and opening the file safely requires it", "mount /proc")
    number = error.errno or errno.EIO
    return unreadable(place, os.strerror(number), f"the error is {errno.errorcode.get(number, number)}")


def _denied(place: str, path: str) -> ManifestError:
    """Name the directory or file that denies access, and the command that fixes it."""
    import shlex

    from remo_broker.manifest import acl

    uid = os.geteuid()
    user, shown = _user()
    closed = _closed_directory(path)
    if closed is not None:
        problem = f"permission denied for user {shown}, which may not pass the directory {shlex.quote(closed)}"
        command = f"setfacl -m {acl.to_pass(closed, uid, user)} {shlex.quote(closed)}"
    else:
        # An editor that saves by renaming makes a new file, which inherits the directory's default
        # ACL.
        directory = os.path.dirname(path)
        problem = f"permission denied for user {shown}"
        entries = f"{acl.to_pass(directory, uid, user)},{acl.to_inherit(directory, path, uid, user)}"
        command = f"setfacl -m {acl.to_read(path, uid, user)} {shlex.quote(path)} && "
        command += f"setfacl -m {entries} {shlex.quote(directory)}"
    return unreadable(place, problem, f"run: {command} (package acl)")


def _closed_directory(path: str) -> str | None:
    """The first directory above `path` that this process may not enter."""
    parts = path.split("/")[1:-1]
    for end in range(len(parts) + 1):
        directory = "/" + "/".join(parts[:end])
        try:
            if not os.access(directory, os.X_OK, effective_ids=True):
                return directory
        except OSError:
            return None
    return None


def _user() -> tuple[str, str]:
    """This process's user, as setfacl(1) takes it and as messages name it."""
    import pwd

    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid), str(uid)
    return name, f"{name} (uid {uid})"
