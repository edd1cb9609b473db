"""The links from where a manifest wants its files to where they lie in memory."""

from __future__ import annotations

import os

from remo_broker.cli.program import Problem
from remo_broker.protocol.names import is_project_name, is_secret_name
from remo_broker.secret.tmpfs import own_name

# Above a link, directories that are not there are made for this user alone.
DIRECTORY_MODE = 0o700


def target_of(file_path: str) -> str:
    """The absolute path that a manifest's `file_path` stands for: below the home directory, unless it is absolute."""
    home = os.path.expanduser("~")
    if not os.path.isabs(home) or os.environ.get("HOME") == "":
        raise Problem("your home directory is not known; set $HOME to its absolute path")
    expanded = os.path.expanduser(file_path)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise Problem(f"a file_path of the manifest begins with {user}, and there is no such user here")
    return os.path.normpath(os.path.join(home, expanded))


def real_place(target: str) -> str:
    """One spelling for a place that has several: through a directory that is a link, or with two slashes in front."""
    return os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))


def file_behind(link: str) -> str | None:
    """The file that a link leads to which this user's remo-secret has made; None for all else, and where nothing is.

    Told by the end of its text, because the directory on the tmpfs may have been another when it was made.
    """
    try:
        where = os.readlink(link)
    except OSError:
        return None
    parts = where.split("/")
    if parts[0] or len(parts) < 4:
        return None
    owner, project, name = parts[-3:]
    return where if owner == own_name() and is_project_name(project) and is_secret_name(name) else None


def check_place(target: str, project: str) -> None:
    """Refuse where a link cannot be put: what is there may be somebody's only copy, or be in use by another project."""
    if os.path.isdir(target):
        raise Problem(f"{target} is a directory; name another file_path")
    behind = file_behind(target)
    if behind is None and os.path.lexists(target):
        raise Problem(
            f"{target} is there already and was not rendered by remo-secret; move it away, or name another file_path"
        )
    if behind is not None and os.path.lexists(behind):
        owner = os.path.basename(os.path.dirname(behind))
        if owner != project:
            raise Problem(
                f"{target} was rendered for {owner}; say 'remo-secret render --remove' in that project's directory, "
                "or name another file_path"
            )
    directory = os.path.dirname(target)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise Problem(f"{target}: {directory} is no directory; move it away, or name another file_path")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Problem(f"{target}: you may not write to {directory}; name another file_path")


def make_directories(directory: str, made: list[str]) -> None:
    """Make a directory and those above it that are missing; what it makes goes to the end of `made`."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for one in reversed(missing):
        os.mkdir(one, DIRECTORY_MODE)
        made.append(one)


def link(target: str, file: str) -> None:
    """Make `target` a link to `file`, in one step. What is no link of ours is not replaced, even if it came just now."""
    before = file_behind(target)
    if before == file:
        return
    if before is None:
        os.symlink(file, target)
        return
    _sweep(target)
    temporary = _temporary(target)
    os.symlink(file, temporary)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def unlink(target: str, file: str) -> None:
    """Remove the link to `file`; whatever else is there by now stays."""
    if file_behind(target) == file:
        os.unlink(target)
    _sweep(target)


def _sweep(target: str) -> None:
    """Remove what a run that was killed has left beside a link."""
    if file_behind(_temporary(target)) is not None:
        os.unlink(_temporary(target))


def _temporary(target: str) -> str:
    return f"{target}.{own_name()}"
