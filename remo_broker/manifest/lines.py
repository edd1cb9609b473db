"""Find a key's line in a manifest, for error messages: TOML's own reader does not report it."""

from __future__ import annotations

import re

# Skip these when searching for keys: comments and multi-line strings. Strings on one line may be
# keys.
_tokens = re.compile(
    r'(?P<long>"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}' + r"|'''(?:[^']|'{1,2}(?!'))*'{3,5})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|(?P<comment>#[^\n]*)",
    re.DOTALL,
)
_header = re.compile(r"\s*\[{1,2}([^\[\]]+)\]").match
_assignment = re.compile(r"\s*([^=\[\]{},]+)=").match
_index = re.compile(r"\[\d+\]").sub


def line_of(content: bytes, key: str | None) -> int | None:
    """The line of a dotted key as errors name it, or of its table; None if neither is found.

    `content` is a manifest that TOML's reader accepts.
    """
    if key is None:
        return None
    lines = _lines(_tokens.sub(_blanked, content.decode("utf-8", "replace")))
    parts = tuple(_index("", key).split("."))
    return next((lines[parts[:end]] for end in range(len(parts), 0, -1) if parts[:end] in lines), None)


def _blanked(found: re.Match[str]) -> str:
    return "\n" * found.group().count("\n") if found.group("long") or found.group("comment") else found.group()


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each table and key begins."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        if (header := _header(line)) is not None:
            key = table = _parts(header.group(1))
        elif (assignment := _assignment(line)) is not None:
            key = table + _parts(assignment.group(1))
        else:
            continue
        for end in range(1, len(key) + 1):
            found.setdefault(key[:end], number)
    return found


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
