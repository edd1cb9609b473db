"""Projects that were unregistered while the state could not be saved: a restart would serve them
again.

What fills the disk may be such a project, so it loses its socket at once, and saving that is tried
again: every few seconds, and once more before the broker exits.
"""

from __future__ import annotations

from remo_broker.broker.manifest_operations import CHANGES
from remo_broker.broker.refusals import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from remo_broker.broker.loop import Job, KeyLocks, Later, Loop

# How often to try again: the state is one file, and a disk has room again when somebody frees it.
AGAIN_SECONDS = 5.0


class Unsaved(set[str]):
    """The names of these projects. `save` saves the state and raises `Refused` if that fails; it
    is called with the lock on `CHANGES`."""

    def __init__(self, loop: Loop, locks: KeyLocks, save: Callable[[], Generator[Later | None, Any, None]]) -> None:
        super().__init__()
        self.busy = False
        """The last try before the exit is under way."""
        self._loop = loop
        self._locks = locks
        self._save = save
        self._due = False

    def save_later(self) -> None:
        """Try until it succeeds: once at a time, however many there are."""
        if not self._due:
            self._due = True
            self._loop.after(AGAIN_SECONDS, lambda: self._loop.start(self._again()))

    def save_before_exit(self, log: Callable[[str], None]) -> None:
        """Try once more, `busy` meanwhile, and `log` if that fails, too."""
        if self:
            self.busy = True
            self._loop.start(self._last_try(log))

    def _again(self) -> Job:
        self._due = False
        try:
            yield from self._try()
        except Refused:
            self.save_later()

    def _last_try(self, log: Callable[[str], None]) -> Job:
        try:
            yield from self._try()
        except Refused as refusal:
            names = ", ".join(sorted(self))
            log(f"Unregistered, but served again from the next start on: {names}. {refusal.message}.")
        finally:
            self.busy = False

    def _try(self) -> Generator[Later | None, Any, None]:
        yield from self._locks.acquire(CHANGES)
        try:
            if self:
                yield from self._save()
        finally:
            self._locks.release(CHANGES)
