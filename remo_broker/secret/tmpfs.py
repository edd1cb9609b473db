"""Files that live in memory: a directory of this user's on a tmpfs, and a directory in it for each project.

A tmpfs is looked for, and verified, because a secret on a disk outlives its file. (What is swapped out is another
matter: give the host encrypted swap, or none.)

Beside each file NAME stands NAME.place, a symlink whose text is where the link to the file was put. So what was
rendered can be removed without the broker and by another manifest than it was rendered by. What begins with a dot is not
finished: whoever holds the directory's lock next removes it.
"""

from __future__ import annotations

import fcntl
import os
import stat

from remo_broker.cli.program import Problem
from remo_broker.protocol.names import is_project_name, is_secret_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"
CANDIDATES = ("/dev/shm", "/run")  # noqa: S108 - made for it
# Others may pass through, so that the mode of a file decides who reads it; they may not list.
DIRECTORY_MODE = 0o711
PLACE_SUFFIX = ".place"

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def candidates() -> list[str]:
    """The runtime directory by its variable, the usual one (a shell in a container lacks the variable), and the rest."""
    runtime = os.environ.get(RUNTIME_VARIABLE, "")
    found = ([runtime] if os.path.isabs(runtime) else []) + [f"/run/user/{os.geteuid()}", *CANDIDATES]
    return list(dict.fromkeys(os.path.normpath(one) for one in found))


def own_name() -> str:
    return f"remo-secret-{os.geteuid()}"


def find_memory() -> str:
    """The first directory on a tmpfs that may be written to, and in which nobody else can replace what is ours."""
    for directory in candidates():
        if is_in_memory(directory) and is_safe(directory) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    raise Problem(
        f"none of {', '.join(candidates())} is a tmpfs of yours or root's that you may write to; "
        f"mount one and name it with ${RUNTIME_VARIABLE}"
    )


def is_in_memory(directory: str) -> bool:
    """Whether a directory is on a file system without a disk, by what the kernel lists as mounted."""
    try:
        device = os.stat(directory).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read().splitlines()
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for mount in mounts:
        about, _, file_system = mount.partition(" - ")
        if about.split()[2] == wanted:
            return file_system.split()[0] in MEMORY_FILE_SYSTEMS
    return False


def is_safe(directory: str) -> bool:
    """Whether only root and this user can rename what this user has put there: `sudo` may keep another's variable."""
    found = os.stat(directory)
    if found.st_uid not in (0, os.geteuid()):
        return False
    return bool(found.st_mode & stat.S_ISVTX) or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


class Folder:
    """A project's directory on the tmpfs, open and locked; only this user can have made what is in it."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.sweep()

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def names(self) -> list[str]:
        """The secrets of which there is anything, a file or only a place."""
        entries = {entry.removesuffix(PLACE_SUFFIX) for entry in os.listdir(self._descriptor)}
        return sorted(name for name in entries if is_secret_name(name))

    def place(self, name: str) -> str | None:
        """Where the link to a file was put."""
        try:
            return os.readlink(name + PLACE_SUFFIX, dir_fd=self._descriptor)
        except OSError:
            return None

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def stage(self, name: str, content: bytes, mode: int, place: str) -> None:
        """Write all there is to write, under names that do not count yet."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_staged(name), flags, 0o600, dir_fd=self._descriptor)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
        os.symlink(place, _staged(name + PLACE_SUFFIX), dir_fd=self._descriptor)

    def commit(self, name: str) -> None:
        """Put in place what was staged: first where its link will be, so that there is never a file that nobody finds."""
        for entry in (name + PLACE_SUFFIX, name):
            os.rename(_staged(entry), entry, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove_file(self, name: str) -> None:
        if self.has(name):
            os.unlink(name, dir_fd=self._descriptor)

    def remove_place(self, name: str) -> None:
        if self.has(name + PLACE_SUFFIX):
            os.unlink(name + PLACE_SUFFIX, dir_fd=self._descriptor)

    def sweep(self) -> None:
        """Remove what was staged and not committed, be it by a run that was killed."""
        for entry in os.listdir(self._descriptor):
            if entry.startswith("."):
                os.unlink(entry, dir_fd=self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def make_folder(project: str) -> Folder:
    """The directory to render a project's files in. Raises `Problem`."""
    if not is_project_name(project):
        raise Problem("the broker gave a name for this project that no project can have")
    base = os.path.join(find_memory(), own_name())
    outer = _make_directory(base, None, base)
    try:
        path = os.path.join(base, project)
        descriptor = _make_directory(project, outer, path)
    finally:
        os.close(outer)
    _lock(descriptor, wait=True)
    return Folder(path, descriptor)


def folders(project: str, *, wait: bool = True) -> list[Folder]:
    """The directories of a project that there are: more than one if the runtime directory was another before.

    Those in use are waited for or, without `wait`, left out: who holds one already must not wait for another.
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
    """The projects of which this user has rendered anything."""
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
    """This user's directories among the candidates, open. What is there under that name and somebody else's is none."""
    for directory in candidates():
        base = os.path.join(directory, own_name())
        try:
            descriptor = os.open(base, _OPEN_DIRECTORY)
        except OSError:
            continue
        try:
            if is_safe(directory) and _is_own(descriptor):
                yield base, descriptor
        finally:
            os.close(descriptor)


def _make_directory(name: str, parent: int | None, path: str) -> int:
    """Make a directory if it is not there, open it, and be sure that it is nobody else's."""
    made = False
    try:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
        made = True
    except FileExistsError:
        pass
    try:
        descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}; remove it, it is in remo-secret's way") from None
    if not _is_own(descriptor):
        os.close(descriptor)
        raise Problem(f"{path} belongs to somebody else, or others may write to it; have it removed")
    if made:
        os.fchmod(descriptor, DIRECTORY_MODE)  # whatever the umask has taken
    return descriptor


def _is_own(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _lock(descriptor: int, wait: bool) -> bool:
    """Whether the directory is ours to change until it is closed; False where somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _staged(entry: str) -> str:
    return f".{entry}"
