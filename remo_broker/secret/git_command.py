"""Run git in a work tree whose files may be hostile: it runs no program of theirs, and it ends."""

from __future__ import annotations

import os
import subprocess

# git opens what the work tree has in place of .gitignore or .git/config: a FIFO makes it wait. A
# healthy git takes milliseconds, on a slow disk a second.
GIT_SECONDS = 10.0
# To read a .gitignore that the index has and the disk lacks, git would fetch it with a command that
# the repository names. Versions before 2.45 know only the first.
NO_FETCH = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1"}


class NoAnswer(Exception):
    """git was ended: it waited for something."""


def run_git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Raises OSError if git cannot be run, and `NoAnswer`."""
    # core.fsmonitor names a program that git would run.
    argv = ["git", "-c", "core.fsmonitor=false", *words]
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | NO_FETCH,
            timeout=GIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer from None
