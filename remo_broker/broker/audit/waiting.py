"""Records that wait for journald, in order, and which one to drop when there are too many.

Each project has its own queue, so that no project displaces another's records. Within a queue,
records of requests that got no secret are dropped before grants: a program can cause any number of
denials, misses and refusals, but grants must not get lost. If there are only grants, the secret that
has the most gives way: fetching one over and over does not hide that another was fetched. A systemd
unit that loads credentials is like a project. Records of operators, such as pushes, also have their own
queue and are dropped last.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from remo_broker.protocol.audit_records import (
    GRANT_LINE,
    MISS_LINE,
    PROJECT_PREFIX,
    SECRET_PREFIX,
    UNIT_PREFIX,
    count_of,
)

# The limit on waiting records also limits what the audit may lose: about 600 KiB of memory at most.
WAITING_RECORDS = 1000


class _Queue:
    """The waiting records of one project, by number."""

    __slots__ = ("granted", "grants", "others", "project")

    def __init__(self, project: str) -> None:
        self.project = project
        self.grants: dict[bytes, deque[int]] = {}
        """By secret; all records of the control plane without one are together."""
        self.granted = 0
        """How many there are."""
        self.others: deque[int] = deque()

    def __len__(self) -> int:
        return self.granted + len(self.others)

    def add_grant(self, secret: bytes, number: int) -> None:
        numbers = self.grants.get(secret)
        if numbers is None:
            numbers = self.grants[secret] = deque()
        numbers.append(number)
        self.granted += 1

    def take_grant(self, secret: bytes) -> int:
        """Take out the oldest of that secret."""
        numbers = self.grants[secret]
        self.granted -= 1
        number = numbers.popleft()
        if not numbers:
            del self.grants[secret]
        return number

    def most_granted(self) -> bytes:
        return max(self.grants, key=lambda secret: len(self.grants[secret]))


class Waiting:
    def __init__(self) -> None:
        self._records: dict[int, tuple[bytes, _Queue, bool]] = {}
        """By number, hence in order: the record, its queue, and whether it is one of `others`."""
        self._queues: dict[str, _Queue] = {}
        self._next = 0
        self.denied: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        """By project: the number of requests in dropped records that no record reports yet."""

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: bytes) -> int:
        """Queue `record`. Returns how many records were dropped for it: 0 or 1, possibly itself."""
        project = project_of(record)
        queue = self._queues.get(project)
        if queue is None:
            queue = self._queues[project] = _Queue(project)
        other = bool(project) and GRANT_LINE not in record
        if other:
            queue.others.append(self._next)
        else:
            queue.add_grant(_field(record, SECRET_PREFIX), self._next)
        self._records[self._next] = record, queue, other
        self._next += 1
        if len(self._records) <= WAITING_RECORDS:
            return 0
        self._give_way(queue)
        return 1

    def _give_way(self, newest: _Queue) -> None:
        """Drop the oldest record without a grant of the project that has the most of them; if there
        is none, that of a grant from the longest queue."""
        fair = WAITING_RECORDS // len(self._queues)
        # A flood usually comes from one project: drop its records without looking at all the
        # others.
        queue = newest if len(newest.others) > fair else max(self._queues.values(), key=_weight)
        if queue.others:
            number = queue.others.popleft()
            record = self._records[number][0]
            if PROJECT_PREFIX in record and not any(event in record for event in _OF_MANIFESTS):
                counts = self.missed if MISS_LINE in record else self.denied
                counts[queue.project] = counts.get(queue.project, 0) + count_of(record)
        else:
            number = queue.take_grant(queue.most_granted())
        self._forget(number)

    def batch(self, limit: int) -> list[bytes]:
        """The first records: as many as fit in `limit` bytes, but at least one."""
        batch: list[bytes] = []
        size = 0
        for record, _, _ in self._records.values():
            size += len(record) + 1
            if batch and size > limit:
                break
            batch.append(record)
        return batch

    def done(self, count: int) -> None:
        """Remove the first `count` records."""
        for number in list(islice(self._records, count)):
            record, queue, other = self._records[number]
            if other:
                queue.others.popleft()
            else:
                queue.take_grant(_field(record, SECRET_PREFIX))
            self._forget(number)

    def _forget(self, number: int) -> None:
        queue = self._records.pop(number)[1]
        if not queue:
            del self._queues[queue.project]


def _weight(queue: _Queue) -> tuple[int, bool, int]:
    return len(queue.others), bool(queue.project), queue.granted


def project_of(record: bytes) -> str:
    """The project whose activity a record is about, or `unit` and the name of the unit; empty for
    records of the control plane.

    Events that only an operator causes also name a project, but do not count as its own.
    """
    if not any(event in record for event in _OWN_DOING):
        return ""
    unit = _field(record, UNIT_PREFIX)
    return (b"unit %b" % unit if unit else _field(record, PROJECT_PREFIX)).decode("ascii", "replace")


def _field(record: bytes, prefix: bytes) -> bytes:
    _, found, rest = record.partition(prefix)
    return rest[: rest.index(b"\n")] if found else b""


# What a project writes into its manifest is recorded whenever somebody has that read again, as any
# process of the broker's user can by SIGHUP.
_OF_MANIFESTS = (b"\nREMO_EVENT=manifest.invalid\n", b"\nREMO_EVENT=manifest.waits\n")
_OWN_DOING = (b"\nREMO_EVENT=fetch", b"\nREMO_EVENT=peer.refused\n", *_OF_MANIFESTS)
