"""Read the files that secrets come from, without blocking and without reading more than intended.

An operator names a file on the command line. It may be of any kind that ends, but a FIFO in the
file system, which another user may have created, would block the program. Where the path leads
through another user's link, that user decides what is read, and so must be able to read it.

A dotenv file names others (`NAME=@PATH`), and a directory holds some. Any user who can write there
could otherwise make root read out any file of the host. So these are read only beneath that
directory, only if they are regular files, and only with the rights of their owner.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque

from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.real_path import real_path
from remo_broker.protocol.shared_limits import MAX_PUSH

# Does not wait for a FIFO's writer, and does not make a terminal the controlling one.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# What a shell passes for <(COMMAND), and names for standard input.
_descriptor = re.compile(r"(?:/dev/fd|/proc/self/fd)/([0-9]{1,6})\Z").match
# For a file whose owner is unknown to the host: none of our groups.
NOBODY = 65534
# As many as the kernel follows.
MAX_LINKS = 40


def too_large(source: str, limit: int = MAX_PUSH) -> InputFault:
    hint = "push fewer or smaller secrets" if limit == MAX_PUSH else None
    return InputFault(source, f"larger than {limit} bytes, which is the limit", hint=hint)


def read(path: str) -> bytes:
    """The content of a file that an operator names. Raises `InputFault`."""
    return read_with_owner(path)[0]


def read_with_owner(path: str, limit: int = MAX_PUSH) -> tuple[bytes, int | None]:
    """A file's content and its owner's uid, which is None for a pipe.

    Raises `InputFault`, also beyond `limit` bytes.
    """
    found = _descriptor(path)
    descriptor = 0 if path == "/dev/stdin" else int(found.group(1)) if found else None
    if descriptor is not None:
        return read_descriptor(descriptor, path, limit), None
    linker = None
    try:
        if path.startswith("/proc/"):  # whose links may lead into another mount namespace
            opened = os.open(path, _FLAGS)
        else:
            target, linker = followed(path)
            with RightsOf(os.geteuid() if linker is None else linker):
                opened = _open("/", target.split("/")[1:])
    except OSError as error:
        hint = None
        if linker is not None and error.errno == errno.EACCES and os.geteuid() == 0:
            hint = "another user's link leads there, and that user may not read it; give the path of the file itself"
        raise InputFault(path, os.strerror(error.errno or 0), hint=hint) from None
    try:
        file = _check_regular(opened, path)
        if linker is not None:
            # In a user namespace, all other users are nobody.
            _check_rights(file, path, linker, known=linker != NOBODY)
        return read_descriptor(opened, path, limit), file.st_uid if linker is None else linker
    finally:
        os.close(opened)


def followed(path: str) -> tuple[str, int | None]:
    """Where a path leads, without links, and the owner of the first link on the way that is neither
    root's nor this user's; None without such a link. Raises OSError."""
    owner = None
    links = 0
    here = "/"
    rest = deque((path if path.startswith("/") else f"{os.getcwd()}/{path}").split("/"))
    while rest:
        name = rest.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        at = os.path.join(here, name)
        found = os.lstat(at)
        if not stat.S_ISLNK(found.st_mode):
            here = at
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if owner is None and found.st_uid not in (0, os.geteuid()):
            owner = found.st_uid
        target = os.readlink(at)
        if target.startswith("/"):
            here = "/"
        rest.extendleft(reversed(target.split("/")))
    return here, owner


def read_in_place(path: str, size: int) -> bytes | None:
    """At most `size` bytes of the regular file at `path`, where another user may have put a link or
    a FIFO; None if there is no such file, or it cannot be read."""
    try:
        descriptor = os.open(path, _FLAGS | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            return file.read(size) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def read_descriptor(descriptor: int, source: str, limit: int = MAX_PUSH) -> bytes:
    """The whole content of an open file, pipe or socket."""
    try:
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1) or b""  # None: a file of the kernel's that would wait
    except OSError as error:
        raise InputFault(source, os.strerror(error.errno or 0)) from None
    if len(content) > limit:
        raise too_large(source, limit)
    return content


def beneath(directory: str) -> Beneath:
    """The files beneath a directory, for whoever put them there, or a link to it. Raises
    OSError."""
    target, linker = followed(directory)
    return Beneath(target, os.lstat(target).st_uid if linker is None else linker)


class Beneath:
    """The files beneath a directory, read with the rights of `owner`.

    The owner is the user who wrote down their names or put them there.
    """

    def __init__(self, directory: str, owner: int) -> None:
        self.root = real_path(directory or ".")
        self._owner = owner

    def names(self) -> list[str]:
        """The directory's entries, sorted, without hidden ones.

        Editors and Kubernetes leave hidden ones there.
        """
        with RightsOf(self._owner):
            try:
                return sorted(name for name in os.listdir(self.root) if not name.startswith("."))
            except OSError as error:
                raise InputFault(self.root, os.strerror(error.errno or 0)) from None

    def read(self, path: str) -> bytes:
        """A file's bytes. `path` is relative to the directory.

        Raises `InputFault` with `path` as its source.
        """
        with RightsOf(self._owner):
            try:
                target = real_path(os.path.join(self.root, path))
                if target == self.root or os.path.commonpath([self.root, target]) != self.root:
                    raise InputFault(
                        path, "outside the directory", hint="move it there, or give it as an argument: NAME=@PATH"
                    )
                opened = _open(self.root, os.path.relpath(target, self.root).split(os.sep))
            except OSError as error:
                raise InputFault(path, os.strerror(error.errno or 0)) from None
        try:
            _check_rights(_check_regular(opened, path), path, self._owner)
            return read_descriptor(opened, path)
        finally:
            os.close(opened)


def _open(root: str, steps: list[str]) -> int:
    """Open a path without following links. Raises OSError.

    The links were resolved before; a link found now was placed there since.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in steps[:-1]:
            inner = os.open(step, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(steps[-1] or ".", _FLAGS | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _check_rights(found: os.stat_result, path: str, owner: int, *, known: bool = True) -> None:
    """Without root the kernel cannot check for another user: accept what that user owns, if the user
    is `known`, or what all may read. Raises `InputFault`."""
    if os.geteuid() in (0, owner) or (known and found.st_uid == owner) or found.st_mode & stat.S_IROTH:
        return
    raise InputFault(path, "not readable by the owner of what leads to it", hint="give the path of the file itself")


def _check_regular(opened: int, path: str) -> os.stat_result:
    found = os.fstat(opened)
    if stat.S_ISREG(found.st_mode):
        return found
    if stat.S_ISDIR(found.st_mode):
        raise InputFault(path, "is a directory")
    if stat.S_ISFIFO(found.st_mode):
        raise InputFault(
            path, "is a FIFO", hint="give a regular file, or what comes from the FIFO through a pipe, as /dev/stdin"
        )
    raise InputFault(path, "is not a regular file")


class RightsOf:
    """As root, open files with a user's rights. The kernel does the checking."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._active = os.geteuid() == 0 and uid != 0

    def __enter__(self) -> None:
        if not self._active:
            return
        import pwd

        self._groups, self._gid = os.getgroups(), os.getegid()
        try:
            entry = pwd.getpwuid(self._uid)
            groups, gid = os.getgrouplist(entry.pw_name, entry.pw_gid), entry.pw_gid
        except KeyError:
            groups, gid = [], NOBODY
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(self._uid)

    def __exit__(self, *_: object) -> None:
        if self._active:
            os.seteuid(0)
            os.setegid(self._gid)
            os.setgroups(self._groups)
