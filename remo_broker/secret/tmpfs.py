"""Files that live in memory: a directory of this user's on a tmpfs, and links to what lies in it.

A tmpfs is looked for, and verified, because a secret on a disk outlives its file. (What is swapped out is another
matter: give the host encrypted swap, or none.)
"""

from __future__ import annotations

import os
import stat

from remo_broker.cli.program import Problem

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"
CANDIDATES = ("/dev/shm", "/run")  # noqa: S108 - made for it
# Others may pass through, so that the mode of a file decides who reads it; they may not list.
DIRECTORY_MODE = 0o711


def candidates() -> list[str]:
    runtime = os.environ.get(RUNTIME_VARIABLE, "")
    return ([runtime] if os.path.isabs(runtime) else []) + list(CANDIDATES)


def own_name() -> str:
    return f"remo-secret-{os.geteuid()}"


def find_memory() -> str:
    """The first directory on a tmpfs that may be written to."""
    for directory in candidates():
        if is_in_memory(directory) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    raise Problem(
        f"none of {', '.join(candidates())} is a tmpfs that you may write to; mount one and name it with ${RUNTIME_VARIABLE}"
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


class Folder:
    """A project's directory on the tmpfs, open; only this user can have made what is in it."""

    def __init__(self, project: str) -> None:
        base = os.path.join(find_memory(), own_name())
        self.path = os.path.join(base, project)
        outer = _own_directory(base, None)
        try:
            self._descriptor = _own_directory(project, outer)
        finally:
            os.close(outer)

    def write(self, name: str, content: bytes, mode: int) -> str:
        """Put a file in place in one step; returns its path."""
        temporary = f".{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
            os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            os.unlink(temporary, dir_fd=self._descriptor)
            raise
        return os.path.join(self.path, name)

    def remove(self, name: str) -> None:
        if name in os.listdir(self._descriptor):
            os.unlink(name, dir_fd=self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _own_directory(path: str, parent: int | None) -> int:
    """Make a directory if it is not there, open it, and be sure that it is nobody else's."""
    made = False
    try:
        os.mkdir(path, DIRECTORY_MODE, dir_fd=parent)
        made = True
    except FileExistsError:
        pass
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}; remove it, it is in remo-secret's way") from None
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise Problem(f"{path} belongs to somebody else, or others may write to it; have it removed")
    if made:
        os.fchmod(descriptor, DIRECTORY_MODE)  # whatever the umask has taken
    return descriptor


def target_of(file_path: str) -> str:
    """The absolute path that a manifest's `file_path` stands for: below the home directory, unless it is absolute."""
    expanded = os.path.expanduser(file_path)
    return os.path.normpath(os.path.join(os.path.expanduser("~"), expanded))


def is_ours(link: str) -> bool:
    """Whether a path is a link to what an earlier run of this user has rendered."""
    try:
        where = os.readlink(link)
    except OSError:
        return False
    return any(where.startswith(os.path.join(base, own_name()) + "/") for base in candidates())


def check_place(target: str) -> None:
    """Refuse where a link cannot be put: what is there may be somebody's only copy."""
    if os.path.lexists(target) and not is_ours(target):
        raise Problem(f"{target} is there already and was not rendered by remo-secret; move it away")


def link(target: str, file: str) -> None:
    """Make `target` a link to `file`, in one step; directories above it are made for this user alone."""
    check_place(target)
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        temporary = f"{target}.remo-secret-{os.getpid()}"
        os.symlink(file, temporary)
        try:
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Problem(f"{target}: {os.strerror(error.errno or 0)}") from None
