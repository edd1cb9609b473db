"""The names that travel: of projects and of secrets, and how a name that is neither is shown.

Rules (remo-broker-protocol(7), remo-broker-manifest(5)):
- a project's name is also a file name, a unit instance and a journal field, hence lower case and short;
- a secret's name is also an environment variable's in most projects, hence letters, digits and underscore;
- text from outside is shown as printable ASCII only, so that no terminal escape reaches a log or a terminal.
"""

from __future__ import annotations

import re

PROJECT_NAME_PATTERN = "^[a-z0-9][a-z0-9_-]{0,63}$"
SECRET_NAME_PATTERN = "^[A-Za-z0-9_]{1,128}$"

# The two sockets in the same directory that are not a project's: `admin.sock` and `status.sock`.
RESERVED_PROJECT_NAMES = frozenset({"admin", "status"})

# As much of a foreign name as an audit record shows: the length of the longest legal one.
MAX_SHOWN_NAME = 128

_project_name = re.compile(PROJECT_NAME_PATTERN[1:-1]).fullmatch
_secret_name = re.compile(SECRET_NAME_PATTERN[1:-1]).fullmatch


def is_project_name(text: str) -> bool:
    return _project_name(text) is not None


def is_secret_name(text: str) -> bool:
    return _secret_name(text) is not None


def counted(count: int, noun: str) -> str:
    """`1 secret`, `2 secrets`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str, limit: int = MAX_SHOWN_NAME) -> str:
    """`text` with all but printable ASCII (and the backslash) escaped as Python does, at most `limit` characters."""
    shown = text[:limit].encode("unicode_escape").decode("ascii")
    return shown[:limit]
