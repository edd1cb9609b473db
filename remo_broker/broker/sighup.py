"""What SIGHUP does: read every manifest again and adopt what it removes.

A manifest that breaks a rule changes nothing until the next signal. One that no reader read in
time, as on a busy host, is read again a few times: what its project gave up must not stay allowed
because the host was busy.
"""

from __future__ import annotations

from remo_broker.broker.manifest_child import NotRead
from remo_broker.broker.refusals import Refused
from remo_broker.broker.startup import OwnPeer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator
    from typing import Any

    from remo_broker.broker.loop import Job, Later, Loop, Timer
    from remo_broker.broker.sockets.connection import Peer

# Pauses before another try. Most hosts are no longer busy after the first one; a manifest that
# hangs each time is given up after the last one.
RETRY_SECONDS = (2.0, 10.0, 60.0)


class Reloads:
    """The reloads that signals ask for.

    `adopt` reads one project's manifest and raises `Refused` if that fails; `begins` and `ended`
    are called around all of them.
    """

    def __init__(
        self,
        loop: Loop,
        projects: Collection[str],
        adopt: Callable[[str, Peer], Generator[Later | None, Any, None]],
        begins: Callable[[], None],
        ended: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._projects = projects
        self._adopt = adopt
        self._begins = begins
        self._ended = ended
        self._log = log
        self._signals = 0
        """Signals not yet fully handled."""
        self._retry: Timer | None = None

    @property
    def busy(self) -> bool:
        return self._signals > 0 or self._retry is not None

    def all(self) -> None:
        """Read all manifests again; if that is under way, once more when it is done."""
        self._signals += 1
        if self._signals == 1:
            self._loop.start(self._read_all())

    def _read_all(self) -> Job:
        late: list[str] = []
        try:
            while self._signals:
                self._signals = 1
                self._begins()
                late = yield from self._read(sorted(self._projects), RETRY_SECONDS)
                self._signals -= 1
        finally:
            self._signals = 0  # or every later signal would wait for this one
        self._ended()
        self._read_later(late, RETRY_SECONDS)

    def _read_later(self, late: list[str], pauses: tuple[float, ...]) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = None
        if late and pauses:
            self._retry = self._loop.after(pauses[0], lambda: self._loop.start(self._read_late(late, pauses[1:])))

    def _read_late(self, names: list[str], pauses: tuple[float, ...]) -> Job:
        retry = self._retry
        late = yield from self._read([name for name in names if name in self._projects], pauses)
        if self._retry is retry:  # otherwise a signal has had all of them read meanwhile
            self._read_later(late, pauses)

    def _read(self, names: list[str], pauses: tuple[float, ...]) -> Generator[Later | None, Any, list[str]]:
        """Returns the projects whose manifests were not read in time."""
        late = []
        for name in names:
            try:
                yield from self._adopt(name, OwnPeer())  # type: ignore[arg-type]
            except NotRead as refusal:
                late.append(name)
                again = f" It is read again in {pauses[0]:g} s." if pauses else ""
                self._log(f"The manifest of {name} was not reloaded: {refusal.message}.{again}")
            except Refused as refusal:
                self._log(f"The manifest of {name} was not reloaded: {refusal.message}")
            except Exception as error:  # noqa: BLE001 - the others are read all the same
                self._loop.on_bug(error)
        return late
