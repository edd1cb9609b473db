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
# What no key has outside quotes; a line with it before the equals sign is the inside of a value.
_NOT_IN_KEY = frozenset("[]{},")
_index = re.compile(r"\[\d+\]").sub


class Lines:
    """The lines of a manifest's keys. `content` is one that TOML's reader accepts."""

    def __init__(self, content: bytes) -> None:
        text = content.decode("utf-8", "replace").removeprefix("\ufeff")
        self._lines = _lines(_tokens.sub(_blanked, text))

    def of(self, key: str | None) -> int | None:
        """The line of a dotted key as errors name it, or of its table; None if neither is found."""
        if key is None:
            return None
        parts = tuple(_index("", key).split("."))
        return next((self._lines[parts[:end]] for end in range(len(parts), 0, -1) if parts[:end] in self._lines), None)


def _blanked(found: re.Match[str]) -> str:
    return "\n" * found.group().count("\n") if found.group("long") or found.group("comment") else found.group()


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each table and key begins."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        if (header := _header(line)) is not None:
            key = table = _parts(header.group(1))
        else:
            name, equals, _ = line.partition("=")
            if not equals or not name.strip() or not _NOT_IN_KEY.isdisjoint(name):
                continue
            key = table + _parts(name)
        for end in range(1, len(key) + 1):
            found.setdefault(key[:end], number)
    return found


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
