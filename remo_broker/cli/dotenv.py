"""Dotenv: `NAME=value` lines, as `remo-brokerctl push` and the sidecar read them.

Unlike other readers of the format, nothing is expanded, so that a value never depends on the environment.
"""

from __future__ import annotations

import re

from remo_broker.cli.program import Problem
from remo_broker.protocol.names import is_secret_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Lines end with LF or CRLF; inside quotes both are kept.
_assignment = re.compile(r"\s*(?:export\s+)?([^\s=#]+)\s*=[ \t]*").match
# Possessive: no part of a value is matched twice, so a long one takes linear time.
_double = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL).match
_single = re.compile(r"'([^']*+)'").match
_bare = re.compile(r"[^\n]*").match
_after = re.compile(r"[ \t]*(?:#[^\n]*|\r)?(?:\n|\Z)").match
_comment = re.compile(r"[ \t]+#.*").search
_escape = re.compile(r"\\(\r\n|.)", re.DOTALL).sub
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\n": "", "\r\n": ""}


def assignments(text: str, where: str) -> Iterator[tuple[int, str, str, bool]]:
    """Line number, name, value, and whether the value was quoted, so that `@` has no meaning in it.

    Raises `Problem` with `where` and the line. A name that no secret can have is not repeated in an error: it may be
    a part of a value, such as a line of a key.
    """
    position = 0
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        rest = _bare(text, position)
        assert rest is not None
        if not rest.group().strip() or rest.group().lstrip().startswith("#"):
            position = rest.end() + 1
            continue
        found = _assignment(text, position)
        if found is None or "\n" in found.group():
            raise Problem(f"{where}:{line}: not NAME=value", hint="put quotes around a value of several lines")
        name, position = found.group(1), found.end()
        sign = text[position : position + 1]
        if sign not in ("'", '"'):
            rest = _bare(text, position)
            assert rest is not None
            yield line, name, _without_comment(rest.group()), False
            position = rest.end() + 1
            continue
        quoted = (_double if sign == '"' else _single)(text, position)
        after = _after(text, quoted.end()) if quoted else None
        if quoted is None or after is None:
            raise Problem(
                f"{where}:{line}: the quotes around {name if is_secret_name(name) else 'a value'} do not close",
                hint="end the value with the quote that it begins with, or put a backslash before a quote inside it",
            )
        value = quoted.group(1)
        yield line, name, value if sign == "'" else _escape(_unescaped, value), True
        position = after.end()


def _without_comment(value: str) -> str:
    found = _comment(" " + value)
    return (value if found is None else value[: max(0, found.start() - 1)]).strip(" \t\r")


def _unescaped(found: re.Match[str]) -> str:
    letter = found.group(1)
    return _ESCAPES.get(letter, letter if letter in '"\\$`' else found.group())
