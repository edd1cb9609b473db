"""Hostile input by chance: streams of the corpus, changed in the ways in which parsers break."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from tests.contract.fuzz.harness import PROJECT, Script
from tests.contract.fuzz.streams import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

# What turns up in broken or hostile requests.
TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"\t",
        b"\x7f",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"null", b"true", b"false", b"NaN", b"-Infinity", b"-0", b"1e999", b"0x1", b"01", b"1.", b"9" * 400, b"-"),
    *(rb"\u0000", rb"\ud800", rb"\udc00", rb"\ud83d\ude00", rb"\u002f", rb"\/", rb"\x", rb"\u12", rb"\u001b[31m"),
    *("é😀\u202e\u2028".encode(), b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x1b[2J"),
    *(
        b'"op":"get",',
        b'"op":"push-creds",',
        b'"name":"TOKEN",',
        b'"secrets":{},',
        b'"secrets_b64":{"A":"AA=="},',
        b'"":0,',
    ),
    *(
        b'{"op":"ping"}\n',
        b'{"op":"status"}\n',
        b'{"op":"get","name":"TOKEN"}\n',
        b'"A' + b"_" * 127 + b'"',
        b"[" * 17,
        b"{" * 17,
    ),
)
# In one stream: more would only take time.
MAX_LINES = 2000
# Ops in one stream that start a process each.
MAX_READERS = 5
_LONG = (60_000, 65_535, 65_536, 70_000)
_VERY_LONG = (200_000, 1_048_575, 1_048_577)


def mutate(random_: random.Random, pool: Sequence[bytes]) -> bytes:
    """A stream of the pool, with a few changes; most changes are small, so that it gets far before
    it is refused."""
    data = random_.choice(pool)
    for _ in range(random_.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        data = random_.choice(_CHANGES)(random_, data, pool)
    return b"\n".join(data[: 2 * _VERY_LONG[-1]].split(b"\n")[:MAX_LINES])


def _flip(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = random_.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :]


def _insert(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    at = random_.randint(0, len(data))
    return data[:at] + random_.choice(TOKENS) + data[at:]


def _replace(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    start, end = _span(random_, data)
    return data[:start] + random_.choice(TOKENS) + data[end:]


def _delete(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    start, end = _span(random_, data)
    return data[:start] + data[end:]


def _repeat(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    start, end = _span(random_, data)
    return data[:end] + data[start:end] * random_.choice((1, 2, 16, 300)) + data[end:]


def _truncate(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    return data[: random_.randint(0, len(data))]


def _splice(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    other = random_.choice(pool)
    return data[: random_.randint(0, len(data))] + other[random_.randint(0, len(other)) :]


def _nest(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    start, end = _span(random_, data)
    levels = random_.choice((1, 13, 16, 2000))
    opening, closing = random_.choice(((b"[", b"]"), (b'{"k":', b"}")))
    return data[:start] + opening * levels + data[start:end] + closing * levels + data[end:]


def _swap(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """Two members of an object change places, or values their keys."""
    parts = data.split(b",")
    if len(parts) < 2:
        return data
    one, other = random_.randrange(len(parts)), random_.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]
    return b",".join(parts)


def _lengthen(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """A string, a number or blanks of great length; rarely, as it is slow to send."""
    if random_.random() < 0.8:
        return data
    length = random_.choice(_VERY_LONG if random_.random() < 0.1 else _LONG)
    at = random_.randint(0, len(data))
    return (
        data[:at]
        + random_.choice((b"x", b"1", b" ", b"\\n", b"[],", b'"":1,', b"\xc3\xa9")) * (length // 2)
        + data[at:]
    )


def _rename(random_: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    """A quoted word becomes another one of any characters."""
    parts = data.split(b'"')
    if len(parts) < 3:
        return data
    at = random_.randrange(1, len(parts), 2)
    word = "".join(
        chr(random_.choice((random_.randrange(0x80), random_.randrange(0xD800))))
        for _ in range(random_.choice((0, 1, 8, 130)))
    )
    parts[at] = json.dumps(word, ensure_ascii=random_.random() < 0.5)[1:-1].encode()
    return b'"'.join(parts)


def _span(random_: random.Random, data: bytes) -> tuple[int, int]:
    start = random_.randint(0, len(data))
    return start, min(len(data), start + random_.choice((1, 2, 4, 16, 64, 4000)))


_CHANGES = (
    _flip,
    _insert,
    _replace,
    _delete,
    _repeat,
    _truncate,
    _splice,
    _nest,
    _swap,
    _lengthen,
    _rename,
    _insert,
    _replace,
)


def make_script(random_: random.Random, pools: dict[str, list[bytes]]) -> Script:
    kind = random_.choice((*KINDS[:2] * 4, KINDS[2]))
    data = mutate(random_, pools[kind])
    for op in (b'"register"', b'"reload"'):
        if data.count(op) > MAX_READERS:
            data = data.replace(op, b'"show"')
    if PROJECT.encode() in data:
        data = data.replace(b'"unregister"', b'"show"')  # later steps need its socket
    data = data.replace(b"watch", b"wotch")  # a stream has no one answer
    cuts: list[int] = []
    if data and random_.random() < 0.3:
        cuts = [random_.randint(0, len(data)) for _ in range(random_.choice((1, 2, 30)))]
    ending = random_.choice(("half-close",) * 8 + ("close",))
    return Script(kind, data, cuts, ending)
