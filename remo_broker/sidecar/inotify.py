"""Report when a path may have changed.

It may have been written, replaced, removed, created, or redirected by a link.

inotify(7) through ctypes: five libc calls. inotify_simple, the smallest library for it, takes 40 ms
to import; ctypes takes 6.

Directories are watched, not the files themselves, so that a file that is replaced by rename or does
not exist yet is noticed too. Each path needs the directory of every link on the way, and the one
that contains the last name.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from remo_broker.cli.real_path import real_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
ONLYDIR = 0x1000000
_MASK = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ONLYDIR
# Events about the directory as a whole.
_DIRECTORY = DELETE_SELF | MOVE_SELF | UNMOUNT | OVERFLOW | IGNORED
# The kernel's own limit on links.
MAX_LINKS = 40
# A watched directory includes what is below it, up to this many directories: a password store, not
# a disk.
MAX_DIRECTORIES = 1024

_EVENT = struct.Struct("iIII")
_READ_SIZE = 64 * 1024

ANY: None = None


class FileChange:
    """`finished`: a writer has closed its file, or a whole file came or went.

    If not, more is likely to follow.
    """

    __slots__ = ("finished",)

    def __init__(self, *, finished: bool) -> None:
        self.finished = finished


class Inotify:
    """Raises `OSError` if the kernel or its limits do not allow inotify."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._directories: dict[str, int] = {}
        self._names: dict[int, set[str] | None] = {}
        self.cut_off: set[str] = set()
        """Paths with more directories below than are watched."""

    def watch(self, paths: Iterable[str]) -> None:
        """Watch exactly these paths. Raises `OSError` when the limit on watches is reached.

        Call again after every change: a link may lead elsewhere, a directory may have been
        replaced.
        """
        wanted: dict[str, set[str] | None] = {}
        self.cut_off = set()
        for path in paths:
            for directory, name in places(path, self.cut_off.add):
                known = wanted.setdefault(directory, set())
                if name is ANY or known is None:
                    wanted[directory] = ANY
                else:
                    known.add(name)
        for directory in [one for one in self._directories if one not in wanted]:
            self._libc.inotify_rm_watch(self.descriptor, self._directories.pop(directory))
        self._names = {}
        for directory, names in wanted.items():
            number: int = self._libc.inotify_add_watch(self.descriptor, os.fsencode(directory), _MASK)
            if number >= 0:
                self._directories[directory] = number
                self._names[number] = names
            elif ctypes.get_errno() not in (
                2,
                13,
                20,
            ):  # missing, no permission, or not a directory any more: only refresh_seconds applies
                raise OSError(ctypes.get_errno(), "inotify_add_watch", directory)

    def changes(self) -> FileChange | None:
        """What has changed since the last call; None if no watched path has."""
        found = None
        while True:
            try:
                data = os.read(self.descriptor, _READ_SIZE)
            except BlockingIOError:
                return found
            position = 0
            while position < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
                position += length
                if self._concerns(number, mask, name):
                    finished = mask & ~(MODIFY | 0x40000000) != 0 or (found is not None and found.finished)
                    found = FileChange(finished=finished)

    def _concerns(self, number: int, mask: int, name: str) -> bool:
        if mask & OVERFLOW:
            return True
        if number not in self._names:
            return False
        names = self._names[number]
        return bool(mask & _DIRECTORY) or names is ANY or name in names

    def close(self) -> None:
        os.close(self.descriptor)


def places(path: str, cut_off: Callable[[str], object]) -> Iterator[tuple[str, str | None]]:
    """The directories to watch for a path, each with the name that matters; `ANY` for all.

    Calls `cut_off` with a directory that has too many below it.
    """
    here = "/"
    steps = [step for step in path.split("/") if step not in ("", ".")][::-1]
    links = 0
    while steps:
        name = steps.pop()
        if name == "..":
            here = os.path.dirname(here)
            continue
        full = os.path.join(here, name)
        try:
            found = os.lstat(full)
        except OSError:
            yield here, name
            return
        if stat.S_ISLNK(found.st_mode):
            yield here, name
            links += 1
            if links > MAX_LINKS:
                return
            try:
                target = os.readlink(full)
            except OSError:  # replaced just now, of which the watch on `here` will tell
                return
            here = "/" if target.startswith("/") else here
            steps += [step for step in target.split("/") if step not in ("", ".")][::-1]
        elif steps:
            here = full
        else:
            yield here, name
            if stat.S_ISDIR(found.st_mode):
                yield from _below(full, cut_off)


def _below(directory: str, cut_off: Callable[[str], object]) -> Iterator[tuple[str, str | None]]:
    """A directory, the directories below it, and the targets of links in it."""
    for count, (here, inner, files) in enumerate(os.walk(directory), 1):
        if count > MAX_DIRECTORIES:
            cut_off(directory)
            return
        yield here, ANY
        inner[:] = [name for name in inner if name != ".git"]
        for name in (*inner, *files):
            full = os.path.join(here, name)
            if os.path.islink(full):
                try:
                    target = real_path(full)
                except OSError:  # a chain of too many links, which nobody can read
                    continue
                yield os.path.dirname(target), os.path.basename(target)
