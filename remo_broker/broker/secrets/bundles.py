"""Bundles in secret memory: each is written again, as the JSON string of its compact JSON."""

from __future__ import annotations

import re

from remo_broker.broker.secrets.memory import REGION_SIZE
from remo_broker.broker.secrets.secret_rules import too_long
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.secrets.memory import Arena, Region
    from remo_broker.broker.secrets.strict_json import Node

_BACKSLASH = 0x5C
_needs_escape = re.compile(rb'[\\"]+')


class Bundles:
    """Writes bundles as JSON strings of compact JSON, one after another, into secret memory.

    Quotes and backslashes grow, so the bundles of a push may need more room than the push: takes as
    many regions as needed.
    """

    def __init__(self, arena: Arena) -> None:
        self.regions = [arena.take()]
        self._arena = arena
        self._start = 0
        """Where the current bundle starts in the last region."""

    def write(self, name: str, source: memoryview, fields: dict[str, Node]) -> tuple[int, int]:
        """Write one bundle. Returns where its literal starts and ends in the last region."""
        try:
            self._write(source, fields)
        except _Full:
            full = self.regions[-1]
            full.blank(self._start, full.used)
            full.used = self._start
            self.regions.append(self._arena.take())
            return self.write(name, source, fields)
        except _TooLong:
            raise too_long(name) from None
        return self._start, self.regions[-1].used

    def _write(self, source: memoryview, fields: dict[str, Node]) -> None:
        self._start = self.regions[-1].used
        separator = b'"{'
        for field, (_, begin, end, _) in fields.items():
            self._put(separator + b'\\"%s\\":\\"' % field.encode("ascii"))
            self._put_escaped(source, begin + 1, end - 1)
            separator = b'\\",'
        self._put(b'\\"}"' if fields else b'"{}"')

    def _room(self, length: int, grown: int) -> Region:
        """The region to write `length` bytes to, which may grow to `grown`."""
        region = self.regions[-1]
        if region.used - self._start + length > MAX_MESSAGE:
            raise _TooLong
        if region.used + grown > REGION_SIZE:
            raise _Full
        return region

    def _put(self, piece: bytes) -> None:
        region = self._room(len(piece), len(piece))
        begin = region.used
        region.used = begin + len(piece)
        region.view[begin : region.used] = piece

    def _put_escaped(self, source: memoryview, position: int, end: int) -> None:
        """Copy the inside of a JSON string, with a backslash before every quote and backslash."""
        region = self._room(end - position, 2 * (end - position))
        at = region.used
        # Set `used` before writing: even after an error, everything written is overwritten later.
        region.used = at + 2 * (end - position)
        view = region.view
        for found in _needs_escape.finditer(source, position, end):
            begin, after = found.span()
            plain = begin - position
            view[at : at + plain] = source[position:begin]
            at += plain
            position = after
            if after - begin == 1:
                view[at] = _BACKSLASH
                view[at + 1] = source[begin]
                at += 2
            else:
                # Every second byte of the run is the original: a strided copy, because runs of
                # escapes can be long.
                view[at : at + 2 * (after - begin)] = b"\\" * (2 * (after - begin))
                view[at + 1 : at + 2 * (after - begin) : 2] = source[begin:after]
                at += 2 * (after - begin)
        view[at : at + end - position] = source[position:end]
        region.used = at + end - position


class _Full(Exception):
    """The bundles' region is full. A bundle within the limit is far smaller than an empty
    region."""


class _TooLong(Exception):
    """The bundle does not fit in a reply."""
