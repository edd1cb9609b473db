"""Write the files of a manifest's bindings, all or none, and remove them again."""

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
    """A file to write, with the path of its link or, for a copy, of the file itself.

    `inside` is the project's directory, without links, if the path must be there.
    """

    __slots__ = ("content", "copy", "inside", "mode", "target")

    def __init__(
        self, target: str, content: bytes, mode: int, *, copy: bool = False, inside: str | None = None
    ) -> None:
        self.target = target
        self.inside = inside
        self.content = content
        self.mode = mode
        self.copy = copy


class Rendering:
    """One run's writes: does first everything that may fail, and can undo what it created."""

    def __init__(self, project: str, files: dict[str, File]) -> None:
        for name, file in files.items():
            ours = os.path.isfile(file.target) and _is_copy(project, name, file.target)
            links.check_place(file.target, project, copy=file.copy, ours=ours)
        self._folder = tmpfs.make_folder(project)
        self.directory = self._folder.path
        self._directories: list[str] = []
        self._fresh: dict[str, File] = {}
        try:
            self._write(files)
        except BaseException:
            self.undo()
            self.close()
            raise

    def _write(self, files: dict[str, File]) -> None:
        folder = self._folder
        for name, file in files.items():
            with _problem_at(folder.file(name)):
                if file.copy:
                    folder.stage_copy(name, file.target)
                else:
                    folder.stage(name, file.content, file.mode, file.target)
        for file in files.values():
            with _problem_at(file.target), self._opened(file):
                pass
        for name, file in files.items():
            with _problem_at(file.target), self._opened(file) as target:
                if file.copy:
                    self._commit_copy(name, file, target)
                else:
                    self._commit(name, file, target)

    @contextmanager
    def _opened(self, file: File) -> Iterator[str]:
        """The file's path below its open directory, which nobody can lead elsewhere."""
        directory, name = os.path.split(file.target)
        opened = links.open_directory(directory, file.inside, self._directories)
        try:
            yield f"/proc/self/fd/{opened}/{name}"
        finally:
            os.close(opened)

    def _commit(self, name: str, file: File, target: str) -> None:
        folder, path = self._folder, self._folder.file(name)
        before, place = links.file_behind(target), folder.place(name)
        if before != path or not folder.has(name):
            self._fresh[name] = file
        if place is not None and place != file.target:  # file_path has changed in the manifest
            with _problem_at(place):
                links.unlink(place, path)
        copied = folder.copy(name)
        if copied is not None:  # it was a copy before
            links.remove_copy(copied)
            folder.remove_place(name)
        folder.commit(name)
        links.link(target, path)
        if before is not None and before != path:
            self._forget(before)

    def _commit_copy(self, name: str, file: File, target: str) -> None:
        folder = self._folder
        before = folder.copy(name)
        if before != file.target:
            self._fresh[name] = file
            if before is not None:
                links.remove_copy(before)
        if folder.has(name):  # it was a link before
            place = folder.place(name)
            if place is not None:
                links.unlink(place, folder.file(name))
            folder.remove_file(name)
            folder.remove_place(name)
        folder.commit_copy(name)
        links.write_copy(target, file.content, file.mode)

    def _forget(self, path: str) -> None:
        """Remove the link's previous target: it is on another tmpfs, or has another name."""
        directory, name = os.path.split(path)
        if directory == self._folder.path:
            _remove(self._folder, name)
            return
        for folder in tmpfs.folders(os.path.basename(directory), wait=False):
            if folder.path == directory:
                _remove(folder, name)
            folder.close()

    def undo(self) -> None:
        """Remove what this run has created so far."""
        for name, file in self._fresh.items():
            self._folder.remove_file(name)
            with suppress(OSError, Problem), self._opened(file) as target:
                if file.copy:
                    links.remove_copy(target)
                else:
                    links.unlink(target, self._folder.file(name))
            self._folder.remove_place(name)
        self._folder.sweep()
        for directory in reversed(self._directories):
            with suppress(OSError):  # it is no longer empty
                os.rmdir(directory)

    def close(self) -> None:
        self._folder.close()


def _is_copy(project: str, name: str, target: str) -> bool:
    """Whether an earlier run wrote a copy there."""
    found = False
    for folder in tmpfs.folders(project):
        found = found or folder.copy(name) == target
        folder.close()
    return found


@contextmanager
def _problem_at(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno or 0)
        hint = "make room there" if error.errno == errno.ENOSPC else None
        raise Problem(f"{path}: {why}; nothing was started, and nothing new is left", hint=hint) from None


def remove(project: str, only: Collection[str] | None) -> None:
    """Remove a project's rendered files and links, or only those of the secrets in `only`.

    Raises OSError for a link that cannot be removed, after removing all files.
    """
    failure = None
    for folder in tmpfs.folders(project):
        try:
            for name in folder.names():
                if only is None or tmpfs.secret_of(name) in only:
                    try:
                        _remove(folder, name)
                    except OSError as error:
                        failure = error
        finally:
            folder.close()
    if failure is not None:
        raise failure


def _remove(folder: tmpfs.Folder, name: str) -> None:
    """Remove the secret first, the place last: after a failure, the place shows what is left."""
    folder.remove_file(name)
    place, copied = folder.place(name), folder.copy(name)
    if place is not None:
        links.unlink(place, folder.file(name))
    if copied is not None:
        links.remove_copy(copied)
    folder.remove_place(name)
