"""Strict JSON, read in place: bytes in, spans out, no value ever copied.

A push carries secrets, so its bytes stay in secret memory, and no string's content becomes a Python
object. Only keys become `str`, to find fields and duplicates. One scanner serves both sockets.

Strict means RFC 8259 with no extension: no NaN or Infinity, no byte-order mark, valid UTF-8, no
lone surrogate, no duplicate key at any level, at most `MAX_DEPTH` levels.

A node is a tuple `(kind, start, end, children)`. `start` and `end` are offsets into the buffer, a
string's quotes included. Children are a dict by key for an object, a list of the first `MAX_ITEMS`
for an array, else None. It is a tuple, not a class, because a push of 10,000 secrets makes 10,000
of them (0.06 µs each against 0.3). The scanner reads everything but keeps only what a request can
have: otherwise a megabyte of the smallest values would take eighty.
"""

from __future__ import annotations

import json
import re

from remo_broker.broker.refusals import Refused, protocol_error
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.shared_limits import MAX_DEPTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TypeAlias

    Buffer: TypeAlias = bytes | memoryview
    Node: TypeAlias = tuple[int, int, int, Any]

STRING, OPEN, NUMBER, LITERAL, OBJECT, ARRAY = 1, 2, 3, 4, 5, 6

# After this many units of work the scanner yields, so that no other client waits for a long push. A
# member costs some 0.6 µs, and so do 512 bytes of it; a step is then some 0.5 ms.
STEP_BUDGET = 512
BYTES_PER_UNIT_SHIFT = 9
# The extra cost of opening and closing a non-empty object or array, and of reading a member that is
# not plain: without it, the deepest nesting of minimal values would make a step of 10 ms.
LEVEL_UNITS = 2
MEMBER_UNITS = 1
# A string with escapes or non-ASCII takes some 20 ns a byte: this many bytes of one are a step.
STRING_STEP = 16 * 1024

# How many items of an array are kept, more than any request may have; the others are read and
# dropped.
MAX_ITEMS = 256
# Only arrays that are fields of the request keep items.
ARRAY_DEPTH = 2
# Objects down to this level keep members: the request, its secrets, a bundle.
OBJECT_DEPTH = 3

# The size in bytes from which glibc treats a piece of memory as large.
LARGE_PIECE = 1024

_WS = rb"[ \t\r\n]*+"
# The content of most strings: printable ASCII and DEL, no quote, no backslash. Tried first, because
# it is cheap to compile and to run; `_any_string` takes over where it does not match.
_PLAIN = rb"[\x20\x21\x23-\x5b\x5d-\x7f]*+"
_value = re.compile(
    rb'("' + _PLAIN + rb'")|([\[{])|(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)|(true|false|null)'
).match
_key = re.compile(rb'"(' + _PLAIN + rb')"' + _WS + rb":" + _WS).match
_after = re.compile(_WS + rb"([,}\]])" + _WS).match
_space = re.compile(_WS).match
# A member whose key and value are both plain, in one step: most of a push.
_plain_member = re.compile(
    rb'"(' + _PLAIN + rb')"' + _WS + rb":" + _WS + rb'("' + _PLAIN + rb'")' + _WS + rb"," + _WS
).match

# A stretch of the inside of any string. Not possessive: Python before 3.11.5 gets a possessive
# repeat of a group wrong (gh-106052). Not to the end of the string: a greedy repeat takes some 100
# bytes of memory per iteration.
_STRETCH = (
    rb"(?:[\x20\x21\x23-\x5b\x5d-\x7f]++"
    rb'|\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
    rb"|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}){1,1000}"
)


# The members of every empty object, and of objects whose members are not kept.
_NO_MEMBERS: dict[str, Node] = {}


def _skip_space(data: Buffer, position: int, end: int) -> int:
    found = _space(data, position, end)
    assert found is not None  # the pattern matches the empty string too
    return found.end()


def _any_string(data: Buffer, position: int, end: int) -> Generator[None, None, int]:
    """Where the string that starts at `position` ends. Compiles its pattern at first use: a start
    should not pay 2 ms for it."""
    stretch = re.compile(_STRETCH).match
    inside = position + 1
    rest = inside + STRING_STEP
    while (found := stretch(data, inside, end)) is not None:
        inside = found.end()
        if inside >= rest:
            rest = inside + STRING_STEP
            yield
    if inside >= end or data[inside] != 0x22:
        raise _not_json(position, "a string is cut short, or holds a control character, a bad escape or bad UTF-8")
    return inside + 1


def _not_json(position: int, what: str) -> Refused:
    return protocol_error(Reason.INVALID_JSON, f"not JSON at byte {position}: {what}; send one JSON object per line")


def text(data: Buffer, start: int, end: int) -> str:
    """The string between two offsets, quotes included, as `str`. Not for a secret's value."""
    literal = bytes(data[start:end])
    return literal[1:-1].decode("utf-8") if b"\\" not in literal else str(json.loads(literal))


def _read_key(
    data: Buffer, position: int, end: int, members: dict[str, Node]
) -> Generator[None, None, tuple[str, int]]:
    """The key at `position` and where its value starts."""
    found = _key(data, position, end)
    if found is not None:
        key, position = found.group(1).decode("ascii"), found.end()
    else:
        if position >= end or data[position] != 0x22:
            raise _not_json(position, "expected a key in quotes")
        close = yield from _any_string(data, position, end)
        key = text(data, position, close)
        position = _skip_space(data, close, end)
        if position >= end or data[position] != 0x3A:
            raise _not_json(position, "expected a colon")
        position = _skip_space(data, position + 1, end)
    if key in members:
        raise protocol_error(Reason.DUPLICATE_KEY, f"duplicate key in an object (byte {position})")
    return key, position


def scan(data: Buffer, start: int, end: int) -> Generator[None, None, Node]:
    """Read the one JSON value in `data[start:end]`; yields regularly so that other jobs run.

    Raises `Refused` (`protocol_error`) for anything that is not strict JSON.
    """
    position = _skip_space(data, start, end)
    stack: list[tuple[int, bool, Any, str]] = []
    key = ""
    children: Any = None
    in_object = False
    opened_at = position
    budget = STEP_BUDGET
    try:
        while True:
            if in_object:
                while (found := _plain_member(data, position, end)) is not None:
                    key = found.group(1).decode("ascii")
                    if key in children:
                        raise protocol_error(Reason.DUPLICATE_KEY, f"duplicate key in an object (byte {position})")
                    begin, position = found.span(2)
                    children[key] = (STRING, begin, position, None)
                    budget -= 1 + (position - begin >> BYTES_PER_UNIT_SHIFT)
                    position = found.end()
                    if budget <= 0:
                        budget = STEP_BUDGET
                        yield
                key, position = yield from _read_key(data, position, end, children)
                budget -= MEMBER_UNITS
            found = _value(data, position, end)
            node: Node
            if found is None:
                if position >= end or data[position] != 0x22:
                    raise _not_json(position, "expected a value")
                node = (STRING, position, (yield from _any_string(data, position, end)), None)
            elif found.lastindex == OPEN:
                if len(stack) == MAX_DEPTH:
                    raise protocol_error(
                        Reason.TOO_DEEP, f"nested deeper than {MAX_DEPTH}; no request needs more than 3"
                    )
                stack.append((opened_at, in_object, children, key))
                opened_at = position
                in_object = data[position] == 0x7B
                position = _skip_space(data, position + 1, end)
                if position >= end or data[position] != (0x7D if in_object else 0x5D):
                    children = {} if in_object else []
                    budget -= LEVEL_UNITS
                    continue
                position += 1
                node = (OBJECT, opened_at, position, _NO_MEMBERS) if in_object else (ARRAY, opened_at, position, ())
                opened_at, in_object, children, key = stack.pop()
            else:
                node = (found.lastindex or 0, position, found.end(), None)
            # A value is complete: store it, and close every container that ends with it.
            while True:
                position = node[2]
                if not stack:
                    if _skip_space(data, position, end) != end:
                        raise _not_json(position, "unexpected text after the value")
                    return node
                if in_object:
                    children[key] = node
                elif len(stack) == ARRAY_DEPTH and len(children) < MAX_ITEMS:
                    children.append(node)
                separator = _after(data, position, end)
                if separator is None:
                    raise _not_json(position, "expected a comma or a closing bracket")
                sign = separator.group(1)
                if sign == b",":
                    position = separator.end()
                    break
                if (sign == b"}") != in_object:
                    raise _not_json(position, "mismatched closing bracket")
                if len(stack) > OBJECT_DEPTH and in_object:
                    yield from forget(children)
                node = (OBJECT if in_object else ARRAY, opened_at, separator.end(1), children)
                opened_at, in_object, children, key = stack.pop()
            budget -= 1 + (node[2] - node[1] >> BYTES_PER_UNIT_SHIFT)
            if budget <= 0:
                budget = STEP_BUDGET
                yield
    except Refused:
        for unfinished in (children, *(entry[2] for entry in stack)):
            if isinstance(unfinished, dict):
                yield from forget(unfinished)
        raise


def forget(members: dict[str, Any]) -> Generator[None, None, None]:
    """Free the nodes in steps: freeing a hundred thousand at once takes 40 ms."""
    stack = [members]
    budget = STEP_BUDGET
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        _, value = stack[-1].popitem()
        if isinstance(value[3], dict):
            stack.append(value[3])
        budget -= 1
        if budget <= 0:
            budget = STEP_BUDGET
            # glibc only sets freed small pieces aside and processes them all at the next request
            # for a large one. Make that request now, for these pieces, instead of once for all.
            bytearray(LARGE_PIECE)
            yield


def finish(steps: Generator[None, None, Any]) -> Any:
    """Run a generator of steps to its end at once, for callers that no client waits for."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
