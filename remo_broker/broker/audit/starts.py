"""Which start of the broker came before this one.

Each start numbers its records from 1, so the numbers show a gap in a start's records, but not that
all records of a start are gone. So each start records the id of the one before. A file keeps it,
and where its records are: nobody would look for them elsewhere.

Nor do numbers show that the last records of a start are gone. They are if it ends, by a kill or a
stop, while they wait for journald. So the file says so while records wait, and the next start repeats
it.
"""

from __future__ import annotations

import _thread
import os

from remo_broker.broker.registrations import Foreign, read_own, write_own
from remo_broker.protocol.audit_records import (
    PREVIOUS_SERIAL_FIELD,
    PREVIOUS_START_FIELD,
    field,
    last_start_text,
    named_start,
)
from remo_broker.protocol.paths import LAST_START_FILE

# How long to wait for the file. A page cache takes it in far less time, but clients must not wait for
# a disk that hangs.
WRITE_SECONDS = 0.05


def previous_fields(state_dir: str, place: str) -> bytes:
    """The fields that name the last start, and a serial of its records if they were waiting when it
    ended. Empty if it is unknown, or its records are not in `place`."""
    try:
        text = read_own(os.path.join(state_dir, LAST_START_FILE)).decode("ascii")
    except (OSError, ValueError, Foreign):
        return b""
    named = named_start(text, place)
    if named is None:
        return b""
    start_id, waiting = named
    return field(PREVIOUS_START_FIELD, start_id) + (field(PREVIOUS_SERIAL_FIELD, waiting) if waiting else b"")


class StartFile:
    """Keeps this start's id in the file, and whether its records wait. If it cannot be written, the
    next start names an earlier one."""

    def __init__(self, state_dir: str, start_id: str, place: str) -> None:
        self._path = os.path.join(state_dir, LAST_START_FILE)
        self._start_id = start_id
        self._place = place
        self._waiting = self._written = 0
        self._is_kept = False
        self._writing = _thread.allocate_lock()
        """Held while the thread runs."""

    def keep(self) -> None:
        """Call it after the first record: a start that the next one names should have one. The disk
        is not waited for."""
        self._is_kept = True
        self._written = self._waiting
        data = self._data(self._waiting)
        try:
            write_own(self._path, data, durable=False)
        except OSError:
            try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
                _overwrite(self._path, data)
            except OSError:
                pass  # the log says of a state directory that is missing what follows from that

    def waits(self, serial: int) -> None:
        """Records wait from now on, that with `serial` among them; with 0, none does any more.
        Returns once that is written, unless the disk hangs."""
        self._waiting = serial
        if not self._is_kept:
            return
        if self._writing.acquire(blocking=False):
            self._start()
        if self._writing.acquire(timeout=WRITE_SECONDS):
            if self._written == self._waiting:
                self._writing.release()
            else:  # the thread had begun before
                self._start()

    def _start(self) -> None:
        try:
            _thread.start_new_thread(self._write, ())
        except RuntimeError:  # cannot start a thread
            self._write()

    def _write(self) -> None:
        """Write what is current; again if that changes meanwhile."""
        while True:
            self._written = self._waiting
            try:  # noqa: SIM105
                _overwrite(self._path, self._data(self._written))
            except OSError:
                pass
            self._writing.release()
            if self._written == self._waiting or not self._writing.acquire(blocking=False):
                return

    def _data(self, waiting: int) -> bytes:
        return last_start_text(self._start_id, self._place, waiting).encode("ascii")


def _overwrite(path: str, data: bytes) -> None:
    """On a full disk, the file of the start before has room. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
