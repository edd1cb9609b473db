"""The project's directory in this container, for files with `base = "project"`."""

from __future__ import annotations

import os

from remo_broker.cli.program import Problem
from remo_broker.cli.real_path import real_path
from remo_broker.secret import git_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.client.quick import QuickInfo
    from remo_broker.protocol.replies import ProjectInfo


def project_directory(info: ProjectInfo | QuickInfo) -> str:
    """The nearest directory, from the working directory up, with the registered manifest.

    The path on the host means nothing here, and other manifests belong to something else.
    """
    import hashlib

    from remo_broker.secret.manifests import nearest

    for source, content in nearest():
        if hashlib.sha256(content).hexdigest() == info.manifest_sha256:
            return os.path.dirname(os.path.dirname(source))
    raise Problem(
        f'the manifest binds a file with base = "project", but the registered manifest of {info.project} is not here',
        hint="go to the project's directory; if its manifest was edited, have an operator reload it",
    )


def check_inside(directory: str, target: str) -> str | None:
    """Refuse a file that a link of the repository takes out of the project: an operator has allowed
    the path, not where a link leads. Return the project's directory, without links; None if the path
    itself leads out of it."""
    inside = real_path(directory)
    place = real_path(os.path.dirname(target))
    if os.path.commonpath([directory, target]) != directory:
        return None
    if os.path.commonpath([inside, place]) != inside:
        raise Problem(
            f"{target} is outside the project, in {place}, because of a link",
            hint="remove the link, or use another file_path",
        )
    return inside


def check_untracked(directory: str, target: str) -> None:
    """Refuse a file that git does not ignore: the file, or the link to it, would be committed."""
    if not _in_work_tree(directory):
        return
    try:
        done = git_command.run_git("-C", directory, "check-ignore", "-q", "--", target)
    except OSError:
        raise Problem(
            f"{target} is in a git work tree, and git is not installed to tell whether it is ignored",
            hint="install git, or use a file_path below the home directory",
        ) from None
    except git_command.NoAnswer:
        import shlex

        # Not 'git status', which would run a program that the repository names.
        raise Problem(
            f"{target} is in a git work tree, and git does not tell whether it is ignored",
            hint=f"it may wait for a FIFO in place of .gitignore or below .git: find {shlex.quote(directory)} -type p",
        ) from None
    if done.returncode != 0:
        raise Problem(
            f"{target} would be tracked by git", hint=f"add {os.path.relpath(target, directory)} to .gitignore"
        )


def _in_work_tree(directory: str) -> bool:
    while True:
        if os.path.lexists(os.path.join(directory, ".git")):
            return True
        if directory == "/":
            return False
        directory = os.path.dirname(directory)
