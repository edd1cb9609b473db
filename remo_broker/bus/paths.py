"""The object paths, and how a project's name is encoded in one.

Labels are escaped as in `sd_bus_path_encode(3)`: each byte other than a letter, or a digit after
the first character, becomes `_` and two hexadecimal digits. So `my-repo` is `my_2drepo`, and `7zip`
is `_37zip`.
"""

from __future__ import annotations

import re

ROOT = "/io/get2know/RemoBroker1"
PROJECTS = f"{ROOT}/project"

_escaped = re.compile(rb"[^A-Za-z0-9]|^[0-9]")
_escape = re.compile(r"_([0-9a-f]{2})")


def escape_label(text: str) -> str:
    """Encode `text` as an element of an object path."""
    if not text:
        return "_"
    return _escaped.sub(lambda found: b"_%02x" % ord(found[0]), text.encode()).decode()


def unescape_label(label: str) -> str | None:
    """Decode `label`; None if `escape_label` would not have produced it."""
    if label == "_":
        return ""
    raw = _escape.sub(lambda found: chr(int(found[1], 16)), label)
    try:
        text = raw.encode("latin-1").decode()
    except UnicodeError:
        return None
    return text if escape_label(text) == label else None


def project_path(name: str) -> str:
    """The object path of the project `name`."""
    return f"{PROJECTS}/{escape_label(name)}"


def project_name(path: str) -> str | None:
    """The project of `path`, registered or not; None if `path` is not a project's."""
    if not path.startswith(f"{PROJECTS}/"):
        return None
    return unescape_label(path.removeprefix(f"{PROJECTS}/"))


def children(path: str) -> tuple[str, ...] | None:
    """The child elements of a path that always exists; None if `path` is not one."""
    if path == PROJECTS:
        return ()
    above = path.rstrip("/") + "/"
    if not PROJECTS.startswith(above):
        return None
    return (PROJECTS.removeprefix(above).partition("/")[0],)
