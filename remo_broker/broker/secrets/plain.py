"""The plain bytes of a value, for readers that do not use JSON.

A value is in secret memory as its JSON literal. It is unescaped into its own region, also in secret
memory, and no Python object ever holds more than a few bytes of it.
"""

from __future__ import annotations

import binascii
import re

from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.strict_json import OBJECT, STRING, finish, scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.secrets.memory import Region

# Base64 is decoded in pieces of this many characters (a multiple of four). The decoded piece is
# briefly an ordinary object, which the allocator overwrites when it is freed.
BASE64_PIECE = 256

_ESCAPES = {0x22: b'"', 0x5C: b"\\", 0x2F: b"/", 0x62: b"\b", 0x66: b"\f", 0x6E: b"\n", 0x72: b"\r", 0x74: b"\t"}
_U = 0x75
_BACKSLASH = 0x5C
_SURROGATES = range(0xD800, 0xE000)


def write_string(region: Region, at: int, data: memoryview, start: int, end: int) -> int:
    """Unescape the string literal `data[start:end]`, quotes included, into `region` at `at`.
    Returns where it ends there."""
    view = region.view
    position, last = start + 1, end - 1
    region.used = max(region.used, at + last - position)
    stretch = re.compile(rb"[^\\]+").match  # compiled at first use: most brokers serve no credential
    while position < last:
        found = stretch(data, position, last)
        if found is not None:
            length = found.end() - position
            view[at : at + length] = data[position : found.end()]
            at += length
            position = found.end()
            continue
        piece, position = _unescape(data, position)
        view[at : at + len(piece)] = piece
        at += len(piece)
    return at


def _unescape(data: memoryview, position: int) -> tuple[bytes, int]:
    """The character that the escape at `position` encodes, and where it ends. The literal has been
    validated."""
    kind = data[position + 1]
    if kind != _U:
        return _ESCAPES[kind], position + 2
    code = int(bytes(data[position + 2 : position + 6]), 16)
    position += 6
    if code in _SURROGATES:
        low = int(bytes(data[position + 2 : position + 6]), 16)
        position += 6
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
    return chr(code).encode(), position


def write_binary(region: Region, data: memoryview, start: int, end: int) -> int:
    """Decode the base64 literal `data[start:end]` into `region` at 0. Returns where it ends
    there."""
    view = region.view
    characters = write_string(region, 0, data, start, end)
    at = 0
    for position in range(0, characters, BASE64_PIECE):
        piece = binascii.a2b_base64(view[position : min(position + BASE64_PIECE, characters)])
        view[at : at + len(piece)] = piece
        at += len(piece)
    return at


def write_field(region: Region, data: memoryview, start: int, end: int, field: str) -> tuple[int, int] | None:
    """Unescape one field of a bundle into `region`. Returns where it starts and ends there, or None
    if the bundle has no such field.

    A bundle is in memory as the JSON string of its JSON.
    """
    length = write_string(region, 0, data, start, end)
    try:
        kind, _, _, members = finish(scan(region.view, 0, length))
    except Refused:  # a string, not a bundle
        return None
    if kind != OBJECT or field not in members or members[field][0] != STRING:
        return None
    _, begin, after, _ = members[field]
    return length, write_string(region, length, region.view, begin, after)
