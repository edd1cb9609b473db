"""Names of projects, secrets and servers, and how to show text that is not a valid name.

Rules (remo-broker-protocol(7), remo-broker-manifest(5)):
- a project's name is also a file name, a unit instance and a journal field, hence lower case and
  short;
- a secret's name is also an environment variable's in most projects, hence letters, digits and
  underscore;
- text from outside is shown as printable ASCII only, so that no terminal escape reaches a log or a
  terminal.
"""

from __future__ import annotations

PROJECT_NAME_PATTERN = "^[a-z0-9][a-z0-9_-]{0,63}$"
SECRET_NAME_PATTERN = "^[A-Za-z0-9_]{1,128}$"
# A server as credential helpers name it: a host in lower case, with its port if the URL has one.
HOST_PATTERN = "^[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$"

# Sockets in the same directory that belong to no project: `admin.sock`, `status.sock`,
# `credentials.sock`.
RESERVED_PROJECT_NAMES = frozenset({"admin", "status", "credentials"})
# Nor can these be registered: clients use `broker.sock` if they are given no socket, which is for
# containers. On the host they would get the secrets of this project in place of their own.
REFUSED_PROJECT_NAMES = RESERVED_PROJECT_NAMES | {"broker"}

# How much of an invalid name an audit record shows: the length of the longest valid one.
MAX_SHOWN_NAME = 128

# The patterns above as sets, because importing `re` takes a tenth of a `remo-secret get`; a test
# compares them.
_SECRET_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_PROJECT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_DIGITS = frozenset("0123456789")
_LONGEST_SECRET_NAME = 128
_LONGEST_PROJECT_NAME = 64
_LONGEST_HOST = 253
_LONGEST_PORT = 5


def is_project_name(text: str) -> bool:
    fits = 0 < len(text) <= _LONGEST_PROJECT_NAME and text[0] not in "_-"
    return fits and _PROJECT_CHARACTERS.issuperset(text)


def is_secret_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_SECRET_NAME and _SECRET_CHARACTERS.issuperset(text)


def is_host(text: str) -> bool:
    host, colon, port = text.partition(":")
    if colon and not (0 < len(port) <= _LONGEST_PORT and _DIGITS.issuperset(port)):
        return False
    fits = 0 < len(host) <= _LONGEST_HOST and _HOST_CHARACTERS.issuperset(host)
    return fits and host[0] not in "._-" and host[-1] not in "._-"


def counted(count: int, noun: str) -> str:
    """`1 secret`, `2 secrets`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str, limit: int = MAX_SHOWN_NAME) -> str:
    """`text` with everything except printable ASCII, and the backslash, escaped as Python does; at
    most `limit` characters."""
    shown = text[:limit].encode("unicode_escape").decode("ascii")
    return shown[:limit]
