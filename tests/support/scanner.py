"""Looks for secrets in the memory of a running process, as root, from outside (requirements M1 and M2).

A value is looked for in every form in which it may lie around: as it is, as a Python string keeps it, as JSON escapes it
(once, and twice as in the answer for a bundle), and in base64 at each of the three ways in which it may start within a
longer text. Not only whole values are found but what is left of one: any part of 15 bytes or more of a form, and 8 bytes
where that is all of it.
"""

from __future__ import annotations

import base64
import bisect
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The lengths of values, in bytes as they are, that requirement M1 names.
LENGTHS = (8, 32, 64, 400, 4000)
# Of 50 secrets so many, counted up, have at most such a length: 1,000 of them fit a push.
_SHARES = ((4000, 1), (400, 5), (64, 15), (32, 30), (8, 50))
# The shortest part of a form that is looked for: see scanner.c.
WINDOW = 8

# Of a part that is found at least so many characters must be told by it; an escape is one however long it is.
LEAST_CHARACTERS = 8

_escape = re.compile(rb"\\+(?:u[0-9a-f]{0,4}|.)", re.DOTALL)
_SOURCE = pathlib.Path(__file__).with_name("scanner.c")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# What JSON encoders escape, or may.
_SPECIAL = '"\\/\n\t\x01\x7f'


def plain(random_: random.Random, length: int) -> str:
    """A value of letters and digits, which looks the same in JSON."""
    return "".join(random_.choices(_LETTERS, k=length))


def awkward(random_: random.Random, length: int) -> str:
    """A value of `length` bytes in UTF-8 in which every fourth character or so is escaped, or of several bytes."""
    text = ""
    while (left := length - len(text.encode())) > 0:
        text += plain(random_, min(left, random_.randint(2, 4)))
        left = length - len(text.encode())
        if left >= 4 and random_.random() < 0.3:
            text += chr(random_.randint(0x1F300, 0x1F5FF))
        elif left >= 2 and random_.random() < 0.5:
            text += chr(random_.randint(0xA1, 0x7FF))
        elif left:
            text += random_.choice(_SPECIAL)
    return text


def forms(value: str | bytes) -> Iterator[tuple[str, bytes]]:
    """Every form in which `value` may lie in memory, with a name; alike ones once."""
    raw = value.encode() if isinstance(value, str) else value
    found = {"raw": raw}
    if isinstance(value, str):
        found["str"] = _as_python_keeps_it(value)
        found["json"] = _inside(value, ascii_only=True)
        found["json, UTF-8"] = _inside(value, ascii_only=False)
        found["json, slashes"] = found["json"].replace(b"/", b"\\/")
        found["json, all escaped"] = "".join(f"\\u{unit:04x}" for unit in _utf16(value)).encode()
        found["json in json"] = _inside(found["json"].decode(), ascii_only=True)
        found["json in json, UTF-8"] = _inside(found["json, UTF-8"].decode(), ascii_only=False)
    for shift in range(3):
        # The characters that are made of this value's bits alone, whatever stands before and after it.
        text = base64.b64encode(bytes(shift) + raw)
        found[f"base64 at {shift}"] = text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
    told = set()
    for name, form in found.items():
        if form not in told and len(form) >= WINDOW:
            told.add(form)
            yield name, form


def _inside(text: str, *, ascii_only: bool) -> bytes:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()


def _as_python_keeps_it(text: str) -> bytes:
    """One, two or four bytes for each character, as the widest of them wants (PEP 393)."""
    widest = max(text, default="")
    return text.encode("latin-1" if widest <= "\xff" else "utf-16-le" if widest <= "\uffff" else "utf-32-le")


def _utf16(text: str) -> tuple[int, ...]:
    data = text.encode("utf-16-le")
    return struct.unpack(f"<{len(data) // 2}H", data)


@dataclass(frozen=True)
class Hit:
    """A stretch of memory that equals a form of a value or a part of one. Does not show it."""

    value: int
    """Which one, as it was given to `scan`."""
    form: str
    address: int
    length: int
    whole: bool

    @property
    def end(self) -> int:
        return self.address + self.length


@dataclass(frozen=True)
class Findings:
    hits: list[Hit]
    read_bytes: int
    unreadable_bytes: int
    """What the kernel did not give away, in mappings that are marked readable."""


@dataclass
class Secrets:
    """A push and all values in it."""

    push: dict[str, Any] = field(default_factory=lambda: {"op": "push-creds", "secrets": {}, "secrets_b64": {}})
    values: list[str | bytes] = field(default_factory=list, repr=False)

    def line(self, *, ascii_only: bool = True) -> bytes:
        return json.dumps(self.push, ensure_ascii=ascii_only, separators=(",", ":")).encode() + b"\n"

    @property
    def names(self) -> list[str]:
        return [*self.push["secrets"], *self.push["secrets_b64"]]


def make_secrets(count: int, seed: str) -> Secrets:
    """`count` secrets of all lengths and kinds, short ones more often so that 1,000 fit a push."""
    random_ = random.Random(seed)
    made = Secrets()
    for number in range(count):
        length = next(length for length, share in _SHARES if number % 50 < share)
        name = f"S{number}"
        value: str | bytes
        match number % 5:
            case 0:
                value = plain(random_, length)
                made.push["secrets"][name] = value
            case 1 | 2:
                value = awkward(random_, length)
                made.push["secrets"][name] = value
            case 3:
                value = awkward(random_, length)
                made.values.append(other := plain(random_, length))
                made.push["secrets"][name] = {"key": value, "other": other}
            case _:
                value = random_.randbytes(length)
                made.push["secrets_b64"][name] = base64.b64encode(value).decode()
        made.values.append(value)
    return made


class Scanner:
    """Compiled once, then used for any process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._program = directory / "scanner"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self._program, _SOURCE], check=True)

    def scan(self, process: int | pathlib.Path, values: Iterable[str | bytes]) -> Findings:
        """Look at every readable mapping of a process, given by its number or its directory in /proc. Wants root."""
        directory = pathlib.Path(f"/proc/{process}") if isinstance(process, int) else process
        looked_for = [(number, *form) for number, value in enumerate(values) for form in forms(value)]
        done = subprocess.run(
            [self._program, directory],
            input=b"".join(struct.pack("<I", len(form)) + form for _, _, form in looked_for),
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the scanner failed: {done.stderr.decode()}")
        *lines, summary = done.stdout.decode().splitlines()
        hits = []
        for line in lines:
            which, offset, address, length = map(int, line.split()[1:])
            number, name, form = looked_for[which]
            whole = length == len(form)
            if whole or _tells_something(form[offset : offset + length]):
                hits.append(Hit(number, name, address, length, whole))
        _, read_bytes, unreadable = summary.split()
        return Findings(_outermost(hits), int(read_bytes), int(unreadable))


def _tells_something(part: bytes) -> bool:
    """Whether a part of a form is long enough not to be there by chance: `\\ud83c\\u` may belong to any picture."""
    return len(_escape.sub(b".", part).replace(b"\0", b"")) >= LEAST_CHARACTERS


def _outermost(hits: list[Hit]) -> list[Hit]:
    """Without those that add less than a window to whole ones: a part of one form may by chance be a part of another's."""
    kept: list[Hit] = []
    for hit in sorted((hit for hit in hits if hit.whole), key=lambda hit: (hit.address, -hit.length)):
        if not kept or hit.end - max(hit.address, kept[-1].end) >= WINDOW:
            kept.append(hit)
    addresses = [hit.address for hit in kept]
    parts = []
    for hit in hits:
        behind = bisect.bisect(addresses, hit.address)
        begin = max(hit.address, kept[behind - 1].end) if behind else hit.address
        end = min(hit.end, kept[behind].address) if behind < len(kept) else hit.end
        if not hit.whole and end - begin >= WINDOW:
            parts.append(hit)
    return kept + parts


def main() -> None:
    """`python -m tests.support.scanner PID <values`: the values, one a line; says how often and where they lie."""
    values = [line.rstrip("\n") for line in sys.stdin]
    findings = Scanner(pathlib.Path(os.environ.get("TMPDIR", "/tmp"))).scan(int(sys.argv[1]), values)
    for hit in findings.hits:
        print(f"value {hit.value + 1} as {hit.form} at {hit.address:x}, {hit.length} bytes")
    print(
        f"{len(findings.hits)} found in {findings.read_bytes} bytes; {findings.unreadable_bytes} bytes are unreadable"
    )


if __name__ == "__main__":
    main()
