"""Links from a manifest's file paths to the files in memory, and copies at those paths."""

from __future__ import annotations

import errno
import os
import stat

from remo_broker.cli.program import Problem
from remo_broker.cli.real_path import real_path
from remo_broker.protocol.names import is_project_name
from remo_broker.secret.tmpfs import is_in_memory, own_name, owner_of, secret_of

# Missing directories above a link are created for this user only.
DIRECTORY_MODE = 0o700
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def target_of(file_path: str, base: str | None = None) -> str:
    """The absolute path of a manifest's `file_path`, which may be relative to `base` or the home
    directory.
    """
    home = os.path.expanduser("~")
    if base is None and (not os.path.isabs(home) or os.environ.get("HOME") == ""):
        raise Problem("your home directory is unknown", hint="set $HOME to its absolute path")
    if base is not None:
        return os.path.normpath(os.path.join(base, file_path))
    expanded = os.path.expanduser(file_path)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise Problem(
            f"a file_path of the manifest begins with {user}, but there is no such user here",
            hint="begin it with ~/ or / in the manifest, and have an operator reload it",
        )
    return os.path.normpath(os.path.join(home, expanded))


def real_place(target: str) -> str:
    """One spelling for a path: resolve linked directories and two leading slashes."""
    return os.path.join(real_path(os.path.dirname(target)), os.path.basename(target))


class Rendered:
    """The contents of a remo-secret link: the target file's owner, project and secret."""

    __slots__ = ("name", "path", "project", "uid")

    def __init__(self, path: str, uid: int, project: str, name: str) -> None:
        self.path = path
        self.uid = uid
        self.project = project
        self.name = name


def read_link(link: str) -> Rendered | None:
    """The target of any user's remo-secret link; None for any other file, or if none exists.

    Recognised by the end of its target, because the directory on the tmpfs may have changed.
    """
    try:
        where = os.readlink(link)
    except OSError:
        return None
    parts = where.split("/")
    if parts[0] or len(parts) < 4:
        return None
    uid, project, name = owner_of(parts[-3]), parts[-2], parts[-1]
    if uid is None or not is_project_name(project) or secret_of(name) is None:
        return None
    return Rendered(where, uid, project, name)


def file_behind(link: str) -> str | None:
    """The file that this user's remo-secret link leads to; None for any other file, or if none
    exists.
    """
    found = read_link(link)
    return found.path if found is not None and found.uid == os.geteuid() else None


def check_place(target: str, project: str, *, copy: bool, ours: bool) -> None:
    """Refuse a path that cannot be linked: it may hold a user's only copy, or be another project's.

    With `ours`, an existing file there is an earlier copy of this project's.
    """
    if os.path.isdir(target):
        raise Problem(f"{target} is a directory", hint="use another file_path")
    found = read_link(target)
    if found is not None and found.uid != os.geteuid():
        _check_abandoned(target, found)
    elif found is None and os.path.lexists(target) and not ours:
        raise Problem(
            f"{target} already exists and was not rendered by remo-secret",
            hint="move it away, or use another file_path",
        )
    elif found is not None and os.path.lexists(found.path) and found.project != project:
        raise Problem(
            f"{target} was rendered for {found.project}",
            hint="run 'remo-secret render --remove' in that project's directory, or use another file_path",
        )
    directory = os.path.dirname(target)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise Problem(f"{target}: {directory} is not a directory", hint="move it away, or use another file_path")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Problem(f"{target}: you may not write to {directory}", hint="use another file_path")
    if copy and not is_in_memory(directory):
        raise Problem(
            f'{target} has place = "copy", but {directory} is not on a tmpfs',
            hint='mount a tmpfs there, or use place = "link"',
        )


def _check_abandoned(target: str, found: Rendered) -> None:
    """Allow replacing another user's link, such as root's, only if that user's file is missing."""
    import shlex

    from remo_broker.client.unreachable import user_name

    try:
        os.lstat(found.path)
    except FileNotFoundError:
        return
    except OSError:
        pass  # we may not enter the other user's directory, so it exists
    raise Problem(
        f"{target} was rendered by user {user_name(found.uid)} for {found.project}",
        hint=f"as that user, run 'remo-secret render --remove'; or remove the link: rm {shlex.quote(target)}",
    )


def open_directory(directory: str, inside: str | None, made: list[str]) -> int:
    """Open a directory, `inside` another, after creating what is missing; append that to `made`.

    Code of the project may put links in its directories at any moment: once the place is resolved,
    no link is followed, and what is written goes through the descriptor. Raises OSError.
    """
    missing: list[str] = []
    there = directory
    while not os.path.isdir(there):
        missing.append(os.path.basename(there))
        there = os.path.dirname(there)
    real = real_path(there)
    if inside is not None and os.path.commonpath([inside, real]) != inside:
        raise Problem(f"{directory} is outside the project, because of a link", hint="remove the link")
    found = os.open("/", _STEP)
    for name in real.split("/")[1:]:
        found = _enter(name or ".", found)
    for name in reversed(missing):
        try:
            os.mkdir(name, DIRECTORY_MODE, dir_fd=found)
        except BaseException:
            os.close(found)
            raise
        there = os.path.join(there, name)
        made.append(there)
        found = _enter(name, found)
    return found


def _enter(name: str, directory: int) -> int:
    try:
        return os.open(name, _STEP, dir_fd=directory)
    finally:
        os.close(directory)


def link(target: str, file: str) -> None:
    """Atomically make `target` a link to `file`. Replaces only links of remo-secret."""
    before = read_link(target)
    if before is not None and before.path == file:
        return
    if before is None:
        os.symlink(file, target)
        return
    sweep(target)
    temporary = _temporary(target)
    os.symlink(file, temporary)
    _rename(temporary, target)


def unlink(target: str, file: str) -> None:
    """Remove the link to `file`; leave anything else."""
    if file_behind(target) == file:
        os.unlink(target)
    sweep(target)


def write_copy(target: str, content: bytes, mode: int) -> None:
    """Write the file itself, atomically. Raises OSError, also if it would be on a disk."""
    if not is_in_memory(os.path.dirname(target)):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), target)
    temporary = _temporary(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    sweep(target)
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    _rename(temporary, target)


def remove_copy(target: str) -> None:
    """Remove a copied file, even if a program has rewritten it since.

    Not from a disk, where no copy was written: a link above it leads elsewhere by now.
    """
    if not is_in_memory(os.path.dirname(target)):
        return
    sweep(target)
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        os.unlink(target)


def _rename(temporary: str, target: str) -> None:
    try:
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def sweep(target: str) -> None:
    """Remove what a killed run left beside a target."""
    temporary = _temporary(target)
    try:
        found = os.lstat(temporary)
    except OSError:
        return
    if found.st_uid == os.geteuid() and not stat.S_ISDIR(found.st_mode):
        os.unlink(temporary)


def _temporary(target: str) -> str:
    return f"{target}.{own_name()}"
