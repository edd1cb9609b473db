"""Records that wait for journald, in their order, and which of them gives way when there are too many.

Each project has a queue of its own, so that none displaces the records of another, and in it denials give way before grants:
a program may cause as many denials as it likes, a grant is what must not get lost. What nobody's project asked for, such as
pushes, has a queue too and gives way last of all.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from remo_broker.protocol.records import DENY_LINE, PROJECT_PREFIX

# What the audit may lose is bounded by what may wait: some 600 KiB of memory at the most.
WAITING_RECORDS = 1000


class _Queue:
    """The records of one project that wait, by their numbers."""

    __slots__ = ("denials", "grants", "project")

    def __init__(self, project: str) -> None:
        self.project = project
        self.grants: deque[int] = deque()
        self.denials: deque[int] = deque()

    def __len__(self) -> int:
        return len(self.grants) + len(self.denials)


class Waiting:
    def __init__(self) -> None:
        self._records: dict[int, tuple[bytes, _Queue, bool]] = {}
        """By number, hence in order: the record, its queue, and whether it is a denial."""
        self._queues: dict[str, _Queue] = {}
        self._next = 0
        self.uncounted: dict[str, int] = {}
        """Denials of each project that gave way and that no record tells yet."""

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: bytes) -> int:
        """Let `record` wait. How many records gave way for it: 0 or 1, and that may be itself."""
        project = project_of(record)
        queue = self._queues.get(project)
        if queue is None:
            queue = self._queues[project] = _Queue(project)
        denied = bool(project) and (DENY_LINE in record or _REFUSED in record)
        (queue.denials if denied else queue.grants).append(self._next)
        self._records[self._next] = record, queue, denied
        self._next += 1
        if len(self._records) <= WAITING_RECORDS:
            return 0
        self._give_way(queue)
        return 1

    def _give_way(self, newest: _Queue) -> None:
        """Drop the oldest denial of the project that has the most; where there are no denials, its oldest record."""
        fair = WAITING_RECORDS // len(self._queues)
        # A flood is one project's; it pays without a look at all the others.
        queue = newest if len(newest.denials) > fair else max(self._queues.values(), key=_weight)
        if queue.denials:
            number = queue.denials.popleft()
            self.uncounted[queue.project] = self.uncounted.get(queue.project, 0) + 1
        else:
            number = queue.grants.popleft()
        self._forget(number)

    def batch(self, limit: int) -> list[bytes]:
        """The first ones, as many as fit `limit` bytes, but at least one."""
        batch: list[bytes] = []
        size = 0
        for record, _, _ in self._records.values():
            size += len(record) + 1
            if batch and size > limit:
                break
            batch.append(record)
        return batch

    def done(self, count: int) -> None:
        """The first `count` wait no more."""
        for number in list(islice(self._records, count)):
            _, queue, denied = self._records[number]
            (queue.denials if denied else queue.grants).popleft()
            self._forget(number)

    def _forget(self, number: int) -> None:
        queue = self._records.pop(number)[1]
        if not queue:
            del self._queues[queue.project]


def _weight(queue: _Queue) -> tuple[int, bool, int]:
    return len(queue.denials), bool(queue.project), len(queue.grants)


def project_of(record: bytes) -> str:
    """The project that a record is about; nothing for those of the control plane.

    Events that only an operator causes name a project as well; those are not the project's doing.
    """
    start = record.find(PROJECT_PREFIX)
    if start < 0 or not any(event in record for event in _OWN_DOING):
        return ""
    start += len(PROJECT_PREFIX)
    return record[start : record.index(b"\n", start)].decode("ascii", "replace")


_REFUSED = b"\nREMO_EVENT=peer.refused\n"
_OWN_DOING = (b"\nREMO_EVENT=fetch", _REFUSED)
