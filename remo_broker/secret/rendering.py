"""Writing the files of a manifest's bindings, all or none, and removing them again."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress

from remo_broker.cli.program import Problem
from remo_broker.secret import links, tmpfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class File:
    """One file to write, and where the link to it goes."""

    __slots__ = ("content", "mode", "target")

    def __init__(self, target: str, content: bytes, mode: int) -> None:
        self.target = target
        self.content = content
        self.mode = mode


class Rendering:
    """One run's writing: what may fail is tried first, and what was not there before it can be taken back."""

    def __init__(self, project: str, files: dict[str, File]) -> None:
        for file in files.values():
            links.check_place(file.target, project)
        self._folder = tmpfs.make_folder(project)
        self._directories: list[str] = []
        self._fresh: dict[str, str] = {}
        try:
            self._write(files)
        except BaseException:
            self.undo()
            self.close()
            raise

    def _write(self, files: dict[str, File]) -> None:
        folder = self._folder
        for name, file in files.items():
            with _told_of(folder.file(name)):
                folder.stage(name, file.content, file.mode, file.target)
        for file in files.values():
            with _told_of(file.target):
                links.make_directories(os.path.dirname(file.target), self._directories)
        for name, file in files.items():
            with _told_of(file.target):
                self._commit(name, file.target)

    def _commit(self, name: str, target: str) -> None:
        folder, path = self._folder, self._folder.file(name)
        before, place = links.file_behind(target), folder.place(name)
        if before != path or not folder.has(name):
            self._fresh[name] = target
        if place is not None and place != target:  # the manifest wants it elsewhere now
            with _told_of(place):
                links.unlink(place, path)
        folder.commit(name)
        links.link(target, path)
        if before is not None and before != path:
            self._forget(before)

    def _forget(self, path: str) -> None:
        """Remove the file that the link led to before: it lies on another tmpfs, or is of another name."""
        directory, name = os.path.split(path)
        if directory == self._folder.path:
            _remove(self._folder, name)
            return
        for folder in tmpfs.folders(os.path.basename(directory), wait=False):
            if folder.path == directory:
                _remove(folder, name)
            folder.close()

    def undo(self) -> None:
        """Remove what was not there before, as far as it got."""
        for name, target in self._fresh.items():
            self._folder.remove_file(name)
            with suppress(OSError):
                links.unlink(target, self._folder.file(name))
            self._folder.remove_place(name)
        self._folder.sweep()
        for directory in reversed(self._directories):
            with suppress(OSError):  # somebody has put something into it
                os.rmdir(directory)

    def close(self) -> None:
        self._folder.close()


@contextmanager
def _told_of(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno or 0)
        if error.errno == errno.ENOSPC:
            why += ", make room there"
        raise Problem(f"{path}: {why}; nothing was started, nothing new is left") from None


def remove(project: str, only: Collection[str] | None) -> None:
    """Remove the files that were rendered for a project, or `only` some of them, and the links to them.

    Raises OSError for a link that cannot be removed, but not before all files are.
    """
    failure = None
    for folder in tmpfs.folders(project):
        try:
            for name in folder.names():
                if only is None or name in only:
                    try:
                        _remove(folder, name)
                    except OSError as error:
                        failure = error
        finally:
            folder.close()
    if failure is not None:
        raise failure


def _remove(folder: tmpfs.Folder, name: str) -> None:
    """First the secret, last the place, which tells whoever comes after a failure that there is something left."""
    folder.remove_file(name)
    place = folder.place(name)
    if place is not None:
        links.unlink(place, folder.file(name))
    folder.remove_place(name)
