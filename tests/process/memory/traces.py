"""Shared by the tests of traces: push and fetch a broker's secrets, and count copies in its memory
and files."""

from __future__ import annotations

import fcntl
import pathlib
import struct
import termios
from collections import Counter

from tests.support.broker import Broker, Link
from tests.support.machine import poll
from tests.support.scanner import Findings, PushedSecrets, forms

SECRETS = 1000
# As many as a manifest of 64 KiB could name, and more.
NAMES = tuple(f"S{number}" for number in range(SECRETS))


def fetch_all(broker: Broker, secrets: PushedSecrets) -> None:
    with Link(broker.project()) as link:
        for name in secrets.names:
            reply = link.ask({"op": "get", "name": name})
            assert reply["ok"]


def handled(broker: Broker, link: Link) -> None:
    """Wait until the broker has read and handled everything sent on `link`."""

    def unread() -> int:
        (count,) = struct.unpack("i", fcntl.ioctl(link.socket, termios.TIOCOUTQ, bytes(4)))
        return int(count)

    poll("all to be read", lambda: not unread())
    broker.status()  # one process does it all: after this reply, earlier requests are finished


def assert_one_copy_each(findings: Findings, count: int) -> None:
    assert all(hit.whole for hit in findings.hits)
    copies = Counter(hit.value for hit in findings.hits)
    assert sorted(copies) == list(range(count))
    assert set(copies.values()) == {1}


def assert_not_written(broker: Broker, values: list[str | bytes]) -> None:
    """Assert that no value is in the broker's files, log, environment or arguments."""
    process = pathlib.Path(f"/proc/{broker.pid}")
    written = [process / "environ", process / "cmdline", broker.log, *broker.state.iterdir()]
    text = b"\0".join(path.read_bytes() for path in written)
    # Only some of a thousand, because the log has a record for each fetch.
    assert not [name for value in values[:: len(values) // 50 + 1] for name, form in forms(value) if form in text]
