"""The C parts of `json`, without its Python parts: importing those takes as long as a whole `get`.

They exist in CPython only. `scan` and `quote` are None elsewhere, and in a CPython whose scanner
needs settings that are not listed here.
"""

from __future__ import annotations

from remo_broker.protocol.shared_limits import MAX_REPLY_DEPTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Settings:
    """The settings of `json.loads`, as the scanner reads them."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    array_hook = None  # since CPython 3.15

    @staticmethod
    def parse_constant(_name: str) -> None:
        raise ValueError


# What the scanner raises for text that is not JSON. Before CPython 3.13, this is a SystemError unless
# `json.decoder`, which defines json's own error, has been loaded.
NOT_JSON = (StopIteration, ValueError, SystemError)

# Returns the value that begins at an offset of a text, and the offset after it.
scan: Any
# Returns a string as JSON, characters outside ASCII as they are.
quote: Callable[[str], str] | None
try:
    from _json import encode_basestring, make_scanner

    scan = make_scanner(_Settings)  # type: ignore[arg-type]
    quote = encode_basestring
except (ImportError, AttributeError):  # not CPython, or one that needs other settings
    scan = quote = None


def is_too_deep(text: str) -> bool:
    """Whether this JSON is nested deeper than a client reads."""
    if text.count("{") + text.count("[") <= MAX_REPLY_DEPTH:
        return False
    depth = 0
    # Between quotes; an escaped backslash is no escape for the quote that follows it.
    for part in text.replace("\\\\", "").replace('\\"', "").split('"')[::2]:
        for sign in part:
            if sign in "{[":
                depth += 1
                if depth > MAX_REPLY_DEPTH:
                    return True
            elif sign in "}]":
                depth -= 1
    return False


def loads(text: str) -> Any:
    """What `json.loads` returns. Raises ValueError or RecursionError."""
    if is_too_deep(text):
        raise ValueError
    if scan is not None:
        try:
            found, end = scan(text, 0)
        except NOT_JSON:
            end = -1
        if end == len(text):
            return found
    import json  # for JSON in another form than the broker's, and for the error if it is not JSON

    return json.loads(text)
