"""Files in memory: this user's directory on a tmpfs, with one subdirectory per project.

Verifies the tmpfs, because a secret on a disk outlives its file. (A tmpfs can be swapped out: give
the host encrypted swap, or none.)

Beside each file NAME is the symlink NAME.place, whose target is the path of the link to the file.
NAME.copy has no file NAME; its target is the path of a copy. So rendered files can be removed
without the broker, even after the manifest has changed. Entries that begin with a dot are
unfinished; the next holder of the directory's lock removes them.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress

from remo_broker.cli.program import Problem
from remo_broker.protocol.mounts import mounts
from remo_broker.protocol.names import is_project_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"
CANDIDATES = ("/dev/shm", "/run")  # noqa: S108 - meant for this
DIRECTORY_MODE = 0o700
PLACE_SUFFIX = ".place"
COPY_SUFFIX = ".copy"
# Where logind makes and removes each user's runtime directory, and which users keep theirs.
SESSIONS = "/run/user"
LINGERING = "/var/lib/systemd/linger"
# Another user can create this user's usual directory in /dev/shm first. If so, add a random suffix.
RANDOM_BYTES = 8

# A file: the secret's name, with a number from a secret's second file on.
_file_name = re.compile(r"([A-Za-z0-9_]{1,128})(-[0-9]{1,3})?").fullmatch
_base_name = re.compile(r"remo-secret-([0-9]+)(-[0-9a-f]{16})?").fullmatch

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def candidates() -> list[str]:
    """Where to look for a tmpfs: $XDG_RUNTIME_DIR, its usual path, then the rest."""
    runtime = os.environ.get(RUNTIME_VARIABLE, "")
    found = ([runtime] if os.path.isabs(runtime) else []) + [f"/run/user/{os.geteuid()}", *CANDIDATES]
    return list(dict.fromkeys(os.path.normpath(one) for one in found))


def own_name() -> str:
    return f"remo-secret-{os.geteuid()}"


def owner_of(base_name: str) -> int | None:
    """The uid in a directory's name; None if the name is not one of ours."""
    found = _base_name(base_name)
    return int(found.group(1)) if found else None


def secret_of(file_name: str) -> str | None:
    """The secret's name in a rendered file's name; None if the name is not one of ours."""
    found = _file_name(file_name)
    return found.group(1) if found else None


def find_memory() -> str:
    """The first writable tmpfs directory where no other user can replace this user's files."""
    for directory in candidates():
        if is_in_memory(directory) and is_safe(directory) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    raise Problem(
        f"none of {', '.join(candidates())} is a writable tmpfs of yours or root's",
        hint=f"mount one, and set ${RUNTIME_VARIABLE} to it",
    )


def is_in_memory(directory: str) -> bool:
    """Whether a directory is on a file system without a disk, from the kernel's mount list."""
    try:
        device = os.stat(directory).st_dev
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for fields in mounts():
        if fields[2] == wanted:
            return fields[fields.index("-") + 1] in MEMORY_FILE_SYSTEMS
    return False


def is_safe(directory: str) -> bool:
    """Whether only root and this user can rename this user's files there: `sudo` may keep another
    user's variable.
    """
    found = os.stat(directory)
    if found.st_uid not in (0, os.geteuid()):
        return False
    return bool(found.st_mode & stat.S_ISVTX) or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def ends_with_session(directory: str) -> bool:
    """Whether systemd-logind removes what is there at the end of the user's last session."""
    if not directory.startswith(f"{SESSIONS}/"):
        return False
    from remo_broker.client.unreachable import user_name

    return not os.path.exists(os.path.join(LINGERING, user_name(os.geteuid())))


class Folder:
    """A project's directory on the tmpfs, open and locked; only this user can have created its
    entries.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.sweep()

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def names(self) -> list[str]:
        """The names that have a file, or only its place."""
        entries = {entry.removesuffix(PLACE_SUFFIX).removesuffix(COPY_SUFFIX) for entry in os.listdir(self._descriptor)}
        return sorted(name for name in entries if _file_name(name))

    def place(self, name: str) -> str | None:
        """The path of the link to a file."""
        return self._text(name + PLACE_SUFFIX)

    def copy(self, name: str) -> str | None:
        """The path of a copy."""
        return self._text(name + COPY_SUFFIX)

    def _text(self, entry: str) -> str | None:
        try:
            return os.readlink(entry, dir_fd=self._descriptor)
        except OSError:
            return None

    def stage_copy(self, name: str, place: str) -> None:
        os.symlink(place, _staged(name + COPY_SUFFIX), dir_fd=self._descriptor)

    def commit_copy(self, name: str) -> None:
        entry = name + COPY_SUFFIX
        os.rename(_staged(entry), entry, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def stage(self, name: str, content: bytes, mode: int, place: str) -> None:
        """Write the file and its place under temporary names."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_staged(name), flags, 0o600, dir_fd=self._descriptor)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
        os.symlink(place, _staged(name + PLACE_SUFFIX), dir_fd=self._descriptor)

    def commit(self, name: str) -> None:
        """Rename the staged file: the place first, so that every file can be found."""
        for entry in (name + PLACE_SUFFIX, name):
            os.rename(_staged(entry), entry, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove_file(self, name: str) -> None:
        if self.has(name):
            os.unlink(name, dir_fd=self._descriptor)

    def remove_place(self, name: str) -> None:
        for suffix in (PLACE_SUFFIX, COPY_SUFFIX):
            if self.has(name + suffix):
                os.unlink(name + suffix, dir_fd=self._descriptor)

    def sweep(self) -> None:
        """Remove what was staged but not committed, for instance by a killed run."""
        for entry in os.listdir(self._descriptor):
            if entry.startswith("."):
                os.unlink(entry, dir_fd=self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def make_folder(project: str) -> Folder:
    """The directory for a project's files. Raises `Problem`."""
    base, outer = _make_base(find_memory())
    try:
        path = os.path.join(base, project)
        descriptor = _make_directory(project, outer, path)
    finally:
        os.close(outer)
    _lock(descriptor, wait=True)
    return Folder(path, descriptor)


def _make_base(memory: str) -> tuple[str, int]:
    """Open this user's directory in `memory`: the usual, an earlier run's, or a new random one."""
    usual = os.path.join(memory, own_name())
    try:
        return usual, _make_directory(usual, None, usual)
    except Problem:
        if not os.stat(memory).st_mode & stat.S_ISVTX:
            raise  # no other user can have created it
    for base, descriptor in _own_bases(memory):
        return base, descriptor
    base = f"{usual}-{os.urandom(RANDOM_BYTES).hex()}"
    return base, _make_directory(base, None, base)


def folders(project: str, *, wait: bool = True) -> list[Folder]:
    """A project's existing directories: several if the runtime directory has changed.

    Waits for locked ones or, without `wait`, skips them: the holder of one lock must not wait for
    another.
    """
    found = []
    for base, outer in _bases():
        try:
            descriptor = os.open(project, _OPEN_DIRECTORY, dir_fd=outer)
        except OSError:
            continue
        if _is_own(descriptor) and _lock(descriptor, wait):
            found.append(Folder(os.path.join(base, project), descriptor))
        else:
            os.close(descriptor)
    return found


def rendered_projects() -> list[str]:
    """The projects for which this user has rendered files."""
    known = {project for _, outer in _bases() for project in os.listdir(outer) if is_project_name(project)}
    found = []
    for project in sorted(known):
        there = folders(project)
        if any(folder.names() for folder in there):
            found.append(project)
        for folder in there:
            folder.close()
    return found


def _bases() -> Iterator[tuple[str, int]]:
    """Yield this user's directories among the candidates, open; each is closed after its step."""
    for directory in candidates():
        for base, descriptor in _own_bases(directory):
            try:
                yield base, descriptor
            finally:
                os.close(descriptor)


def _own_bases(directory: str) -> Iterator[tuple[str, int]]:
    """Yield this user's open directories in one candidate. Skips another user's of that name."""
    try:
        names = sorted(name for name in os.listdir(directory) if owner_of(name) == os.geteuid())
        safe = is_safe(directory)
    except OSError:
        return
    for base in (os.path.join(directory, name) for name in names if safe):
        try:
            descriptor = os.open(base, _OPEN_DIRECTORY)
        except OSError:
            continue
        if _is_own(descriptor):
            yield base, descriptor
        else:
            os.close(descriptor)


def _make_directory(name: str, parent: int | None, path: str) -> int:
    """Create a directory if it does not exist, open it, and verify that it belongs to this user."""
    with suppress(FileExistsError):
        os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
    try:
        descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise Problem(
            f"{path}: {os.strerror(error.errno or 0)}", hint="remove it; remo-secret needs the name"
        ) from None
    if not _is_own(descriptor):
        os.close(descriptor)
        raise Problem(
            f"{path} belongs to another user, or others may write to it", hint="remove it as its owner or as root"
        )
    os.fchmod(descriptor, DIRECTORY_MODE)  # regardless of the umask or an older version
    return descriptor


def _is_own(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock the directory until it is closed; False if another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _staged(entry: str) -> str:
    return f".{entry}"
