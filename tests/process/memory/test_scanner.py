"""The scanner finds what is there: all tests that it finds nothing depend on these."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.host_memory import require_memfd_secret
from tests.support.scanner import LENGTHS, Scanner, awkward, forms, make_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

# Holds a value once, at a given place. The kernel writes it there, because decoding would leave
# another copy on the stack.
_HOLDER = """
import ctypes, mmap, os, sys
held = []
while order := os.read(0, 16):
    where, length = order.split()
    memory = bytearray(int(length)) if where == b"heap" else mmap.mmap(-1, int(length))
    if where == b"secret":
        descriptor = ctypes.CDLL(None).syscall(447, 0)
        if descriptor < 0:
            os.write(1, b"none")
            continue
        os.ftruncate(descriptor, int(length))
        memory = mmap.mmap(descriptor, int(length))
    os.write(1, b"room")
    assert os.readv(0, [memory]) == int(length)
    held.append(memory)
    os.write(1, b"held")
"""


class Holder:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def hold(self, data: bytes, where: str = "heap") -> bool:
        """Whether there is such memory."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{where} {len(data)}".encode())
        if self.process.stdout.read(4) == b"none":
            return False
        self.process.stdin.write(data)
        return self.process.stdout.read(4) == b"held"


@pytest.fixture
def holder() -> Iterator[Holder]:
    holder = Holder()
    with holder.process, contextlib.ExitStack() as stack:
        stack.callback(holder.process.kill)
        yield holder


@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_is_found(scanner: Scanner, holder: Holder, length: int) -> None:
    random_ = random.Random(length)
    values: list[str | bytes] = [plain(random_, length), awkward(random_, length), random_.randbytes(length)]
    assert not scanner.scan(holder.process.pid, values).hits
    planted = []
    for number, value in enumerate(values):
        for name, form in forms(value):
            holder.hold(b"<" + form + b">")
            planted.append((number, name))
    found = {(hit.value, hit.form) for hit in scanner.scan(holder.process.pid, values).hits if hit.whole}
    assert found == set(planted)


def test_forms_are_those_that_programs_produce() -> None:
    value = 'a"b\\c/é😀\n0123456789'
    found = dict(forms(value))
    assert found["json"] in json.dumps({"key": [value]}).encode()
    assert found["json, UTF-8"] in json.dumps({"key": [value]}, ensure_ascii=False).encode()
    assert found["json in json"] in json.dumps({"key": json.dumps({"key": value})}).encode()
    assert found["str"] in ctypes.string_at(id(value), sys.getsizeof(value))
    for before in (b"", b"1", b"12"):
        assert found[f"base64 at {len(before)}"] in base64.b64encode(before + value.encode() + b"!")


@pytest.mark.parametrize("offset", range(8))
def test_a_fragment_of_a_value_is_found(scanner: Scanner, holder: Holder, offset: int) -> None:
    """Wherever it is cut, and at any alignment."""
    value = plain(random.Random(offset), 400)
    holder.hold(b"." * offset + value[100 + offset : 115 + offset].encode() + b".")
    hits = scanner.scan(holder.process.pid, [value]).hits
    assert [(hit.whole, hit.length) for hit in hits] == [(False, 15)]


def test_mapped_memory(scanner: Scanner, holder: Holder) -> None:
    value = plain(random.Random("mapped"), 64)
    assert holder.hold(value.encode(), "mapped")
    assert [hit.whole for hit in scanner.scan(holder.process.pid, [value]).hits] == [True]


def test_secret_memory_is_unreadable(scanner: Scanner, holder: Holder) -> None:
    value = plain(random.Random("secret"), 64)
    before = scanner.scan(holder.process.pid, [value])
    require_memfd_secret()
    assert holder.hold(value.encode(), "secret")
    after = scanner.scan(holder.process.pid, [value])
    assert not after.hits
    assert after.unreadable_bytes == before.unreadable_bytes + 4096


def test_copies_are_counted(scanner: Scanner, holder: Holder) -> None:
    value = plain(random.Random("copies"), 32)
    for _ in range(3):
        holder.hold(value.encode())
    assert len(scanner.scan(holder.process.pid, [value]).hits) == 3


def test_a_thousand_secrets_fit_a_push() -> None:
    secrets = make_secrets(1000, "count")
    assert len(secrets.names) == 1000
    assert len(secrets.line()) < 1 << 20
    lengths = {len(value.encode() if isinstance(value, str) else value) for value in secrets.values}
    assert lengths == set(LENGTHS)
