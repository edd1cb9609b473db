"""The manifest reader with its TOML parser replaced by a misbehaving one: see test_child.

Usage: python -m tests.process.manifest.stand_in WHAT DESCRIPTOR
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
import time
from typing import Any

from remo_broker.manifest import __main__ as child
from remo_broker.manifest import document
from tests.support.broker import NOBODY


class Probed(Exception):
    """The name of its subclass tells what was possible."""


def fail(_: bytes) -> None:
    raise ZeroDivisionError("hunter2")


def recurse(content: bytes) -> None:
    recurse(content)


def allocate(_: bytes) -> bytes:
    return b"x" * (child.ADDRESS_SPACE + 1)


def lack(_: bytes) -> None:
    raise ImportError("hunter2")


def loop(_: bytes) -> None:
    while True:
        pass


def sleep(_: bytes) -> None:
    time.sleep(60)


def loop_in_c(_: bytes) -> int:
    return sum(itertools.repeat(0))


def fork() -> int:
    if os.getuid() == 0:
        os.setuid(NOBODY)  # the limit does not hold for root
    return os.fork()


def probe(_: bytes) -> None:
    """Try what the reader must not be able to do, and report what worked."""
    worked = []
    for name, attempt in (
        ("write", lambda: os.write(os.open("written", os.O_CREAT | os.O_WRONLY), b"x")),
        ("inherited", lambda: os.fstat(int(sys.argv[2]))),
        ("descriptors", lambda: [os.dup(0) for _ in range(child.DESCRIPTORS)]),
        ("core", lambda: resource.getrlimit(resource.RLIMIT_CORE)[1]),
        ("fork", fork),
    ):
        try:
            if attempt():
                worked.append(name)
        except OSError:
            pass
    raise type("_".join(["Probed", *worked]), (Probed,), {})


if __name__ == "__main__":
    parse: Any = globals()[sys.argv[1]]
    document.parse = parse
    child.restrict()
    child.reply(child.answer(child.receive()))
