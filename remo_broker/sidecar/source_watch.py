"""When to read the sources again after a change to their files."""

from __future__ import annotations

import os

from remo_broker.protocol.clock import boot_seconds
from remo_broker.sidecar.inotify import MAX_DIRECTORIES, Inotify
from remo_broker.sidecar.notify import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Changes within this time count as one.
JOIN_SECONDS = 0.2
# After a writer has closed a file, wait this long for others of the same burst.
QUIET_SECONDS = 0.03
# Delay before the next change counts, after one that led to nothing new; doubled each time.
REST_SECONDS = (0.2, 60.0)
# How often to read the sources while not all of their files can be watched.
POLL_SECONDS = 60.0
NEVER = float("inf")


class SourceWatch:
    """`due` is when to read the sources, on the boot clock."""

    def __init__(self) -> None:
        self.due = NEVER
        self._first = NEVER
        self._rest = 0.0
        self._not_before = 0.0
        self._warned: set[str] = set()
        self.poll_seconds: float | None = None
        """How often to read the sources although nothing has changed; None if all files are
        watched."""
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._warn(error)
            self.poll_seconds = POLL_SECONDS

    @property
    def descriptor(self) -> int | None:
        return None if self._inotify is None else self._inotify.descriptor

    def follow(self, paths: Iterable[str]) -> None:
        """Watch these paths and what they now resolve to."""
        if self._inotify is None:
            return
        self.poll_seconds = None
        try:
            self._inotify.watch(paths)
        except OSError as error:
            self._warn(error)
            self.poll_seconds = POLL_SECONDS
        for path in sorted(self._inotify.cut_off):
            self._say(f"{path}: more than {MAX_DIRECTORIES} directories, not all watched", "watch fewer")
            self.poll_seconds = POLL_SECONDS

    def _warn(self, error: OSError) -> None:
        why = os.strerror(error.errno or 0)
        self._say(f"cannot watch all files ({why})", "raise fs.inotify.max_user_watches")

    def _say(self, what: str, remedy: str) -> None:
        """Once for each cause."""
        if what not in self._warned:
            self._warned.add(what)
            log(WARNING, f"{what}: sources are read every {POLL_SECONDS:g} s; {remedy}, or set refresh_seconds")

    def read(self) -> None:
        """Process inotify's events."""
        change = self._inotify.changes() if self._inotify is not None else None
        if change is None:
            return
        now = boot_seconds()
        self._first = min(self._first, now)
        quiet = QUIET_SECONDS if change.finished else JOIN_SECONDS
        self.due = max(min(self._first + JOIN_SECONDS, now + quiet), self._not_before)

    def taken(self) -> None:
        """Clear the pending changes: the sources are about to be read."""
        self.due = self._first = NEVER

    def rest(self, *, futile: bool) -> None:
        """The sources were read. `futile`: because of a change that led to nothing new."""
        self._rest = min(max(self._rest * 2, REST_SECONDS[0]), REST_SECONDS[1]) if futile else 0.0
        self._not_before = boot_seconds() + self._rest
