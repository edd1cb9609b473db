"""Searches a running process's memory for secrets, from outside, as root.

It searches for each value in every likely form: raw, as stored in a Python string, escaped for JSON
(once, and twice as in the reply for a bundle), and in base64 at each of the three alignments within
a longer text. It finds whole values and fragments: any part of a form of 15 bytes or more, or 8
bytes if that is the whole form.
"""

from __future__ import annotations

import base64
import bisect
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The lengths of values tried, in raw bytes.
LENGTHS = (8, 32, 64, 400, 4000)
# (Length, number of secrets of every 50, cumulative), longest first. 1,000 such secrets fit a push.
_SHARES = ((4000, 1), (400, 5), (64, 15), (32, 30), (8, 50))
# The shortest part of a form to search for: see scanner.c.
WINDOW = 8
_SOURCE = pathlib.Path(__file__).with_name("scanner.c")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# Characters that JSON encoders escape, or may escape.
_SPECIAL = '"\\/\n\t\x01\x7f'


def plain(random_: random.Random, length: int) -> str:
    """A value of letters and digits, unchanged in JSON."""
    return "".join(random_.choices(_LETTERS, k=length))


def awkward(random_: random.Random, length: int) -> str:
    """A value of `length` bytes in UTF-8; about every fourth character is escaped or multibyte."""
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
    """Every form in which `value` may be in memory, with a name; identical forms once."""
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
        # The characters that depend only on this value's bits, not on its neighbours.
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
    """One, two or four bytes per character, as the widest one requires (PEP 393)."""
    widest = max(text, default="")
    return text.encode("latin-1" if widest <= "\xff" else "utf-16-le" if widest <= "\uffff" else "utf-32-le")


def _utf16(text: str) -> tuple[int, ...]:
    data = text.encode("utf-16-le")
    return struct.unpack(f"<{len(data) // 2}H", data)


@dataclass(frozen=True)
class Hit:
    """A range of memory that equals a form of a value or a part of one.

    Does not hold the content.
    """

    value: int
    """The value's index in the argument of `scan`."""
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
    """Bytes that the kernel refused to return, in mappings marked readable."""


@dataclass
class PushedSecrets:
    """A push and all its values."""

    push: dict[str, Any] = field(default_factory=lambda: {"op": "push-creds", "secrets": {}, "secrets_b64": {}})
    values: list[str | bytes] = field(default_factory=list, repr=False)

    def line(self, *, ascii_only: bool = True) -> bytes:
        return json.dumps(self.push, ensure_ascii=ascii_only, separators=(",", ":")).encode() + b"\n"

    @property
    def names(self) -> list[str]:
        return [*self.push["secrets"], *self.push["secrets_b64"]]


def make_secrets(count: int, seed: str) -> PushedSecrets:
    """`count` secrets of all lengths and kinds, mostly short, so that 1,000 fit a push."""
    random_ = random.Random(seed)
    made = PushedSecrets()
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
    """Compiled once, then usable for any process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._program = directory / "scanner"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self._program, _SOURCE], check=True)

    def scan(self, process: int | pathlib.Path, values: Iterable[str | bytes]) -> Findings:
        """Search every readable mapping of a process, given by pid or /proc directory.

        Needs root.
        """
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
            which, address, length = map(int, line.split()[1:])
            number, name, form = looked_for[which]
            hits.append(Hit(number, name, address, length, whole=length == len(form)))
        _, read_bytes, unreadable = summary.split()
        return Findings(_outermost(hits), int(read_bytes), int(unreadable))


def _outermost(hits: list[Hit]) -> list[Hit]:
    """Drop hits that add less than a window to whole ones: a part of one form may also be a part of
    another.
    """
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
    """`python -m tests.support.scanner PID <values`: one value per line; prints their number and
    addresses.
    """
    values = [line.rstrip("\n") for line in sys.stdin]
    findings = Scanner(pathlib.Path(os.environ.get("TMPDIR", "/tmp"))).scan(int(sys.argv[1]), values)
    for hit in findings.hits:
        print(f"value {hit.value + 1} as {hit.form} at {hit.address:x}, {hit.length} bytes")
    print(
        f"{len(findings.hits)} found in {findings.read_bytes} bytes; {findings.unreadable_bytes} bytes are unreadable"
    )


if __name__ == "__main__":
    main()
