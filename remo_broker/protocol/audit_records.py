"""Audit records: events, their fixed message ids and their fields, in journald's native format.

No function here takes a secret's value. Names are validated by the caller, or pass through
`names.printable`; a field value with a newline is length-prefixed, so that no client can forge a
field.

The record of a get is on the hot path and has four parts: `fetch_head` (constant for a name between
two pushes), `peer_fields` (constant for a connection), the latency (constant for a turn) and the
serial.
"""

from __future__ import annotations

import os
import struct
from enum import Enum, StrEnum

from remo_broker.protocol.names import printable

IDENTIFIER = "remo-broker"

PRIORITY_ALLOWED = 6
PRIORITY_CONTROL = 5
PRIORITY_REFUSED = 4
PRIORITY_DEGRADED = 3


class Event(Enum):
    """The word in REMO_EVENT, the MESSAGE_ID (explained in the journal catalog), and the usual
    priority."""

    FETCH = ("fetch", "646507820fc6454c85c2413b72918c0a", PRIORITY_ALLOWED)
    FIRST_SEEN = ("fetch.first_seen", "d674d7da92614bc2b0476a39cb7bedd1", PRIORITY_CONTROL)
    RATE_LIMITED = ("fetch.rate_limited", "4f36400b59014dadb85deafe36c6593e", PRIORITY_REFUSED)
    DENIALS_COUNTED = ("fetch.denials_counted", "42c0d50ca74b46318ad3b20a6946c718", PRIORITY_REFUSED)
    PEER_REFUSED = ("peer.refused", "2f5063233d15448884138b74a5cf0549", PRIORITY_REFUSED)
    PUSHED = ("secrets.pushed", "a7f74dbb32064eaeab9aa893a9a78859", PRIORITY_CONTROL)
    CLEARED = ("secrets.cleared", "f03384748a2b4626815f27780e3b6319", PRIORITY_CONTROL)
    REGISTERED = ("project.registered", "2841b82e5dd8440a8b9d490827771c2a", PRIORITY_CONTROL)
    UNREGISTERED = ("project.unregistered", "c062904861234b18a4ff428165c6b757", PRIORITY_CONTROL)
    RELOADED = ("manifest.reloaded", "f316b51fafa54c83bb87154a54d7abf9", PRIORITY_CONTROL)
    MANIFEST_INVALID = ("manifest.invalid", "2538a0ecde5d43b0afad976aa4749ae1", PRIORITY_REFUSED)
    MANIFEST_WAITS = ("manifest.waits", "fe09725136cc4b7cb6d00c3c8bc5f4fa", PRIORITY_CONTROL)
    STARTED = ("broker.started", "7910579352a64d63ae3754b7e3db9886", PRIORITY_CONTROL)
    STOPPED = ("broker.stopped", "3c4e8af18ffc4b90b1d45cedb14122eb", PRIORITY_CONTROL)
    DEGRADED = ("audit.degraded", "9e9194edcc0749ee92b22c975ec2b171", PRIORITY_DEGRADED)
    PROBED = ("audit.probe", "6aae2c2884174d539066d694a8773357", PRIORITY_ALLOWED)
    RECOVERED = ("audit.recovered", "ecffe5a045e14ce2834ecbe9155e4c8f", PRIORITY_CONTROL)

    def __init__(self, word: str, message_id: str, priority: int) -> None:
        self.word = word
        self.message_id = message_id
        self.priority = priority


class Decision(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Outcome(StrEnum):
    OK = "ok"
    NOT_FOUND = "not_found"
    DENIED = "denied"


class Backend(StrEnum):
    """Where an allowed get was served from: `cache` within a lease that began earlier, else
    `store`."""

    STORE = "store"
    CACHE = "cache"


# REMO_REASON of a get that the manifest allows and whose secret the broker holds.
IN_MANIFEST = "in_manifest"

EVENT_TIME_FIELD = "REMO_EVENT_USEC"
# Together these identify every record: the start of the broker, and the record's number within that
# start.
START_ID_FIELD = "REMO_START_ID"
SERIAL_FIELD = "REMO_SERIAL"
START_ID_DIGITS = 32
# Digits of a 64-bit number.
LONGEST_SERIAL = 20
# The sink of an audit that goes to the journal.
JOURNAL = "journal"
# In the first record of a start: the id of the start before it, and if that ended while journald did
# not accept its records, a serial that it had reached then.
PREVIOUS_START_FIELD = "REMO_PREVIOUS_START_ID"
PREVIOUS_SERIAL_FIELD = "REMO_PREVIOUS_SERIAL"
# REMO_REASON of denials that are only counted.
NOT_TAKEN = "not_taken"
LONG_NAMES = "long_names"

# For telling queued records apart.
PROJECT_PREFIX = b"\nREMO_PROJECT="
UNIT_PREFIX = b"\nREMO_UNIT="
SECRET_PREFIX = b"\nREMO_SECRET="
GRANT_LINE = b"\nREMO_OUTCOME=ok\n"
MISS_LINE = b"\nREMO_OUTCOME=not_found\n"
_COUNT_PREFIX = b"\nREMO_COUNT="


def field(name: str, value: str | int) -> bytes:
    """One field of journald's native protocol, newline included."""
    data = str(value).encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode("ascii") + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode("ascii") + b"=" + data + b"\n"


def record(event: Event, message: str, *, priority: int | None = None, **fields: str | int) -> bytes:
    """A record without the peer's fields. `fields` have lower-case names, without `REMO_`."""
    parts = [
        field("MESSAGE", message),
        field("MESSAGE_ID", event.message_id),
        field("PRIORITY", event.priority if priority is None else priority),
        field("SYSLOG_IDENTIFIER", IDENTIFIER),
        field("REMO_EVENT", event.word),
    ]
    parts += [field("REMO_" + name.upper(), value) for name, value in fields.items()]
    return b"".join(parts)


def denials_counted(project: str, count: int, reason: str, message: str) -> bytes:
    """One record for denials that have no records of their own, without the peer's fields."""
    return record(
        Event.DENIALS_COUNTED, message, project=project, decision=Decision.DENY.value, reason=reason, count=count
    )


def misses_counted(project: str, count: int, message: str) -> bytes:
    """The same for requests that were allowed, for secrets that the broker does not hold."""
    return record(
        Event.DENIALS_COUNTED,
        message,
        project=project,
        decision=Decision.ALLOW.value,
        outcome=Outcome.NOT_FOUND.value,
        reason=NOT_TAKEN,
        count=count,
    )


def count_of(record: bytes) -> int:
    """How many requests a record stands for."""
    _, found, rest = record.partition(_COUNT_PREFIX)
    return int(rest[: rest.index(b"\n")]) if found else 1


def place(sink: str, namespace: str | None) -> str:
    """Where a start's records are, in LAST_START_FILE."""
    return f"{sink}:{namespace or ''}"


def last_start_text(start_id: str, where: str, waiting: int) -> str:
    """The text of LAST_START_FILE. `waiting` is a serial of the start while its records are not
    accepted, else 0."""
    return f"{start_id} {where}\n" + (f"{waiting}\n" if waiting else "")


def named_start(text: str, where: str) -> tuple[str, int] | None:
    """The id and the `waiting` of such a text; None if it has none, or of records elsewhere."""
    first, _, second = text.partition("\n")
    start_id, _, found = first.partition(" ")
    if not is_start_id(start_id) or found != where:
        return None
    number = second.strip()
    return start_id, int(number) if number.isdecimal() and len(number) <= LONGEST_SERIAL else 0


def is_start_id(text: str) -> bool:
    return len(text) == START_ID_DIGITS and set(text) <= set("0123456789abcdef")


def serial_of(record: bytes) -> bytes:
    """The two fields that number a record, for the record that replaces it."""
    start = record.rindex(b"\nREMO_START_ID=") + 1
    return record[start : record.index(b"\n", record.index(b"REMO_SERIAL=", start)) + 1]


def note(priority: int, message: str) -> bytes:
    """A log line that is not an audit event."""
    return field("MESSAGE", message) + field("PRIORITY", priority) + field("SYSLOG_IDENTIFIER", IDENTIFIER)


def peer_fields(pid: int, uid: int, gid: int) -> bytes:
    return b"REMO_PEER_PID=%d\nREMO_PEER_UID=%d\nREMO_PEER_GID=%d\n" % (pid, uid, gid)


def own_fields() -> bytes:
    """The broker itself as the peer, for records that no client caused."""
    return peer_fields(os.getpid(), os.getuid(), os.getgid())


_LATENCY = b"REMO_LATENCY_USEC=%d\n"


def end(start_id: str) -> bytes:
    """The format of the end of a record: takes the fields that it shares with others, and its
    serial."""
    return b"%b" + _number(start_id)


def end_of_get(start_id: str) -> bytes:
    """The same with the latency as the only shared field: takes its whole microseconds."""
    return _LATENCY + _number(start_id)


def _number(start_id: str) -> bytes:
    return field(START_ID_FIELD, start_id) + b"REMO_SERIAL=%d\n"


def latency_field(microseconds: float) -> bytes:
    """Rounded down."""
    return _LATENCY % microseconds


def fetch_head(
    project: str,
    secret: str,
    decision: Decision,
    outcome: Outcome,
    reason: str,
    generation: int,
    backend: Backend | None = None,
) -> bytes:
    """The head of a get's record. `secret` may be any text; it is made printable."""
    shown = printable(secret)
    if decision is Decision.DENY:
        message = f"Project {project} was denied {shown} ({reason})."
    elif outcome is Outcome.OK:
        message = f"Project {project} fetched {shown}."
    else:
        message = f"Project {project} requested {shown}, which the broker does not hold ({reason})."
    refused = decision is Decision.DENY
    subject = {"project": project, "secret": shown}
    where = {} if backend is None else {"backend": backend.value}
    return _head(message, subject, decision, outcome, reason, generation, refused=refused, **where)


def credential_head(
    unit: str, credential: str, secret: str, decision: Decision, outcome: Outcome, reason: str, generation: int
) -> bytes:
    """The record of a credential that a unit loads, without the peer and the latency. `secret` is
    empty if no rule matches. The names are printable."""
    if outcome is Outcome.OK:
        message = f"Unit {unit} loaded {secret} as credential {credential}."
    else:
        message = f"Unit {unit} was refused credential {credential} ({reason})."
    subject = {"unit": unit, "credential": credential} | ({"secret": secret} if secret else {})
    return _head(message, subject, decision, outcome, reason, generation, refused=outcome is not Outcome.OK)


def _head(
    message: str,
    subject: dict[str, str],
    decision: Decision,
    outcome: Outcome,
    reason: str,
    generation: int,
    *,
    refused: bool,
    **more: str,
) -> bytes:
    return record(
        Event.FETCH,
        message,
        priority=PRIORITY_REFUSED if refused else PRIORITY_ALLOWED,
        **subject,
        decision=decision.value,
        outcome=outcome.value,
        reason=reason,
        generation=generation,
        **more,
    )
