"""Which start of the broker came before this one.

Each start numbers its records from 1, so the numbers show a gap in a start's records, but not that
all records of a start are gone. So each start records the id of the one before. A file keeps it,
and where its records are: nobody would look for them elsewhere.
"""

from __future__ import annotations

import os

from remo_broker.broker.registrations import Foreign, read_own, write_own
from remo_broker.protocol.audit_records import named_start
from remo_broker.protocol.paths import LAST_START_FILE


def last_start(state_dir: str, place: str) -> str | None:
    """The id of the last start; None if it is unknown, or its records are not in `place`."""
    try:
        text = read_own(os.path.join(state_dir, LAST_START_FILE)).decode("ascii")
    except (OSError, ValueError, Foreign):
        return None
    return named_start(text, place)


def keep_start(state_dir: str, start_id: str, place: str) -> None:
    """Keep the id of this start. Call it after its first record: a start that the next one names
    should have one. If it cannot be kept, the next start names an earlier one. The disk is not waited
    for."""
    path = os.path.join(state_dir, LAST_START_FILE)
    data = f"{start_id} {place}\n".encode("ascii")
    try:
        write_own(path, data, durable=False)
    except OSError:
        try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
            _overwrite(path, data)
        except OSError:
            pass  # the log says of a state directory that is missing what follows from that


def _overwrite(path: str, data: bytes) -> None:
    """On a full disk, the file of the start before has room. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
