"""Sends a stream of bytes to a broker's socket and judges what comes back.

Judged is, for each stream: one answer for each line and in order, of a code that the model allows,
in the shape of remo-broker-protocol(7), repeating nothing of the request; a client of another
project is answered meanwhile. And in the end: no fault of the broker's own in its log, no
descriptor more than before, no growth beyond a bound."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import socket
import struct
import termios
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remo_broker.protocol.codes import ADMIN_CODES, PROJECT_CODES, Reason
from tests.contract.fuzz import model
from tests.support.broker import FAULT, Broker, Link, registration
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Sequence

# Whose socket it is that streams are sent to; the corpus names it too.
PROJECT = "fuzzed"
ALLOWED = frozenset({"TOKEN", "bundle", "BINARY", "MISSING"})

# The most of its own processor time that the broker may take before it answers another client.
MAX_STALL_SECONDS = 1.0
# From one answer to the next.
ANSWER_SECONDS = 20.0
# What the heap does not give back: a line of a megabyte takes some twenty while it is read, and
# what is made meanwhile and stays keeps parts of them. It does not grow with the number of such
# lines.
MAX_GROWTH_KIB = 8 * 1024
_CODES: dict[str, set[str]] = {
    "project": {*PROJECT_CODES},
    "admin": {*ADMIN_CODES},
    "status": {"protocol_error", "internal_error"},
}
_REASONS: set[str] = {*Reason}


class Wrong(AssertionError):
    """What the broker did that it must not do."""


@dataclass
class Script:
    """One connection: the bytes, where they are cut into separate sends, and how it ends."""

    kind: str
    data: bytes = field(repr=False)
    cuts: Sequence[int] = ()
    ending: str = "half-close"
    """`half-close`: judge every answer. `close`: leave at once, with answers unread."""

    def pieces(self) -> Iterator[bytes]:
        cuts = sorted({0, len(self.data), *(cut for cut in self.cuts if cut <= len(self.data))})
        for start, end in itertools.pairwise(cuts):
            yield self.data[start:end]


def lines(data: bytes) -> Iterator[bytes]:
    """As the broker sees them: with their newlines, the last one as EOF ends it."""
    start = 0
    while (newline := data.find(b"\n", start)) >= 0:
        yield data[start : newline + 1]
        start = newline + 1
    if start < len(data):
        yield data[start:]


def verdict(kind: str, line: bytes) -> model.Expected:
    if kind == "project":
        return model.on_project(line, ALLOWED)
    return model.on_admin(line) if kind == "admin" else model.on_status(line)


class Harness:
    """A broker of its own, and what must stay true of it."""

    def __init__(self, directory: pathlib.Path) -> None:
        projects = [registration(PROJECT, *ALLOWED), registration("canary", "TOKEN")]
        # No rate limit, as that would answer most of it; no idle exit.
        self.broker = Broker(directory, projects=projects, rate_limit_per_second=0, idle_exit_seconds=0)
        self.signatures: set[tuple[str, ...]] = set()
        """What was answered so far, without what differs each time: new ones tell that something
        new was reached."""
        self._log_read = 0

    def start(self) -> None:
        self.broker.start()
        self._canary = Link(self.broker.project("canary"))
        self._canary.ask({"op": "ping"})
        self.remember()

    def remember(self) -> None:
        """Growth counts from now on."""
        self.reset()
        self.descriptors = self._open_descriptors()
        self.resident_kib = self.broker.resident_kib()

    def reset(self) -> None:
        """The store as it is to be; what was pushed may have been large."""
        self.broker.push({"TOKEN": "value", "bundle": {"a": '"', "b": ""}}, BINARY="3q2+7w==")

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._canary.close()
        self.broker.close()

    def path(self, kind: str) -> pathlib.Path:
        return {
            "project": self.broker.project(PROJECT),
            "admin": self.broker.admin,
            "status": self.broker.status_socket,
        }[kind]

    # --- one connection

    def run(self, script: Script) -> bool:
        """Send it, judge what comes back; whether an answer of a new kind came. Raises `Wrong`."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path(script.kind)))
            answers = self._exchange(connection, script)
        self._ask_canary()
        self._check_log()
        return script.ending == "half-close" and self._judge(script, answers)

    def _exchange(self, connection: socket.socket, script: Script) -> bytes:
        connection.setblocking(False)
        stream = _Stream(connection)
        for piece in script.pieces():
            stream.send(piece)
            if script.cuts:
                stream.wait_until_read()
        if script.ending == "half-close":
            stream.read_to_end()
        return stream.answers

    def _judge(self, script: Script, answers: bytes) -> bool:
        said = answers.split(b"\n")
        if said.pop():
            raise Wrong("the last answer has no newline")
        new = False
        asked = list(lines(script.data))
        for number, line in enumerate(asked):
            expected = verdict(script.kind, line)
            if not said:
                raise Wrong(f"line {number + 1} of {len(asked)} has no answer")
            code = self._check_answer(script.kind, line, said.pop(0))
            if code[0] not in expected.codes:
                raise Wrong(f"line {number + 1} was answered {code}, expected {sorted(expected.codes)}")
            if code not in self.signatures:
                self.signatures.add(code)
                new = True
            if expected.fatal or (expected.fatal is None and not said):
                break
        if said:
            raise Wrong(f"{len(said)} answers too many")
        return new

    def _check_answer(self, kind: str, line: bytes, answer: bytes) -> tuple[str, ...]:
        """The code and reason of an answer, which has the right shape."""
        if len(answer) >= model.MAX_LINE:
            raise Wrong("an answer is too long")
        try:
            reply = model.parse(answer)
        except ValueError as error:
            raise Wrong(f"an answer is not JSON: {error}") from None
        if reply.get("ok") is True:
            return (model.OK, *sorted(reply))
        message = reply.get("message")
        if not (
            reply.get("ok") is False
            and str(reply.get("code")) in _CODES[kind]
            and isinstance(message, str)
            and message.isprintable()
            and reply.get("reason", "too_long") in _REASONS
            and reply.keys() <= {"ok", "code", "message", "reason", "retry_after_seconds"}
        ):
            raise Wrong("a failure does not have the shape of one")
        if reply["code"] == "internal_error" and "reason" not in reply:
            raise Wrong("a fault of the broker's own")
        if reply["code"] == "protocol_error" and _repeats(message, line):
            raise Wrong("an error repeats a part of the request")
        template = "".join("0" if one.isdigit() else one for one in message)
        return (reply["code"], reply.get("reason", ""), template if len(template) < 120 else "")

    # --- what must stay true

    def _ask_canary(self) -> None:
        began = self.broker.processor_seconds()
        if not self._canary.ask({"op": "ping"})["ok"]:
            raise Wrong("another project is not answered")
        if self.broker.processor_seconds() - began > MAX_STALL_SECONDS:
            raise Wrong("another project waits")

    def _check_log(self) -> None:
        with self.broker.log.open("rb") as log:
            log.seek(self._log_read)
            text = log.read()
        self._log_read += len(text)
        if FAULT.encode() in text or b"Traceback" in text:
            raise Wrong("an internal error of the broker")
        if any(byte < 0x20 and byte != 0x0A for byte in text) or not text.isascii():
            raise Wrong("the log is not printable ASCII")

    def _open_descriptors(self) -> int:
        """An ordinary user cannot tell, and fuzzes without that."""
        return self.broker.descriptors() if os.geteuid() == 0 else 0

    def check_growth(self) -> None:
        """No descriptor more than when it was to be remembered, and no more memory than the
        bound."""
        self.reset()
        try:
            poll("its descriptors to be closed", lambda: self._open_descriptors() <= self.descriptors)
        except TimeoutError:
            raise Wrong(f"{self._open_descriptors() - self.descriptors} descriptors too many") from None

        def growth() -> int:
            self.reset()  # each time: a push whose client has gone may be taken behind the last one
            return self.broker.resident_kib() - self.resident_kib

        try:  # what is forgotten is forgotten in steps
            poll("its memory to come back", lambda: growth() <= MAX_GROWTH_KIB)
        except TimeoutError:
            raise Wrong(f"{growth()} KiB of memory more than at the start") from None


class _Stream:
    """Sends and receives at a time, as the broker reads nothing while its answers are not read."""

    def __init__(self, connection: socket.socket) -> None:
        self.answers = b""
        self._connection = connection
        self._ended = False
        self._deadline = time.monotonic() + ANSWER_SECONDS

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._ended:
            _, writable, _ = select.select([self._connection], [self._connection], [], 1)
            self._receive()
            if writable:
                with contextlib.suppress(OSError):  # what was said before it closed may still be read
                    rest = rest[self._connection.send(rest) :]

    def wait_until_read(self) -> None:
        """Until the broker has taken all that was sent, so that what comes next is a read of its
        own."""
        while struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, bytes(4)))[0] and not self._ended:
            self._receive()

    def read_to_end(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        while not self._ended:
            select.select([self._connection], [], [], 1)
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._connection.recv(1 << 20)
        except BlockingIOError:
            if time.monotonic() > self._deadline:
                raise Wrong("the broker neither takes, answers nor ends") from None
            return
        except OSError:
            data = b""
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self.answers += data
        self._ended = not data


def _repeats(message: str, line: bytes) -> bool:
    """Whether an error holds a word of the request that is not the protocol's own."""
    words = {word for word in line.replace(b'"', b" ").split() if len(word) > 12}
    return any(word in message.encode() for word in words if word not in _OWN_WORDS)


# Words of the protocol that an error may name and a request may hold.
_OWN_WORDS = {b"project_path", b"allowed_uids", b"secrets_b64", b"protocol_error"}
