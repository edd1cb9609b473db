"""Checks that records are stored, not only accepted: journald's settings or the unit's can make it
drop them.

The broker may not read the journal, because a process that holds secrets should read as little as
possible. It writes a record with the priority of a fetch and asks a helper, on the socket of its
own unit, whether the journal contains that record. Without the helper the result is unknown.
"""

from __future__ import annotations

import _socket

from remo_broker.broker.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Loop, Timer

# The delay of the first check, so as not to slow down startup; none if secrets wait for the answer.
FIRST_SECONDS = 2.0
# The interval while records are written. A setting that drops them takes effect when journald or
# the unit next starts.
PERIOD_SECONDS = 60.0
# The interval while records are not accepted or not stored.
RETRY_SECONDS = 5.0
# The helper searches for two seconds, and must be started first.
ANSWER_SECONDS = 15.0
# journald may take longer than the helper waits, so a record must be absent this many times in a
# row.
ABSENT = 2
LONGEST_ANSWER = 64


class ReadBack:
    """Asks the helper periodically. `unknown` is called with the reason the first time there is no
    answer."""

    def __init__(self, loop: Loop, trail: AuditTrail, path: str, unknown: Callable[[str], None]) -> None:
        self._loop = loop
        self._trail = trail
        self._path = path
        self._unknown = unknown
        self._told = False
        self._connection: _socket.socket | None = None
        self._timer: Timer | None = None
        self._serial = 0
        """The last record's serial when records were last found to be stored."""
        self._asked = 0
        self._absent = 0

    def begin(self, *, strict: bool) -> None:
        """`strict`: secrets wait for the first answer."""
        if strict:
            self._trail.wait_for_storage()
        self._loop.after(0.0 if strict else FIRST_SECONDS, self._ask)

    def _ask(self) -> None:
        trail = self._trail
        if not trail.healthy or (trail.stored and trail.serial == self._serial):
            self._loop.after(RETRY_SECONDS if not trail.healthy else PERIOD_SECONDS, self._ask)
            return
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            self._no_answer(f"{self._path}: {error.strerror or error}")
            return
        self._asked = trail.probe()
        if not self._asked:
            connection.close()
            self._loop.after(RETRY_SECONDS, self._ask)
            return
        self._connection = connection
        try:
            connection.send(f"{trail.start_id} {self._asked} {trail.namespace or ''}\n".encode("ascii", "replace"))
        except OSError as error:
            self._close()
            self._no_answer(f"{self._path}: {error.strerror or error}")
            return
        self._loop.watch(connection.fileno(), READ, self._readable)
        self._timer = self._loop.after(ANSWER_SECONDS, self._too_late)

    def _readable(self) -> None:
        assert self._connection is not None
        try:
            answer = self._connection.recv(LONGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        self._close()
        self._answered(answer.strip())

    def _too_late(self) -> None:
        if self._connection is not None:
            self._close()
            self._no_answer(f"{self._path}: no answer")

    def _answered(self, answer: bytes) -> None:
        trail = self._trail
        if answer == b"stored":
            self._absent = 0
            self._serial = trail.serial if trail.serial == self._asked else self._asked
            trail.storage_found()
            self._loop.after(PERIOD_SECONDS, self._ask)
        elif answer != b"absent":
            self._no_answer("the helper cannot read the journal")
        else:
            self._absent += trail.healthy  # journald cannot have dropped what it has not received
            if self._absent >= ABSENT:
                trail.storage_missing(self._asked)
            self._loop.after(0.0 if self._absent < ABSENT else RETRY_SECONDS, self._ask)

    def _no_answer(self, why: str) -> None:
        """An unknown result is reported once, but is no reason to deny secrets."""
        if not self._told:
            self._told = True
            self._unknown(why)
        self._trail.storage_unknown()
        self._loop.after(PERIOD_SECONDS, self._ask)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None
