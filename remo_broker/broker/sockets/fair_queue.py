"""The fair queue: connections with more requests than one turn of the loop serves."""

from __future__ import annotations

from remo_broker.broker.projects import SHARE
from remo_broker.broker.refusals import BUG
from remo_broker.broker.sockets.connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.loop import Job, Loop
    from remo_broker.broker.projects import Project
    from remo_broker.broker.sockets.outbox import Outbox


class QueuedConnection(Connection):
    """A connection that can wait in the queue."""

    __slots__ = ()

    @property
    def has_to_wait(self) -> bool:
        """Whether `go_on` cannot make progress yet."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Serve the remaining requests."""
        raise NotImplementedError


class FairQueue:
    """Connections with complete lines left for the next turn. In each turn a project is served
    until its share is used up, so that a project that pipelines or sends long lines does not delay
    others."""

    def __init__(self, loop: Loop, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self.waiting: list[QueuedConnection] = []
        self.drawn: list[Project] = []
        """Projects that have used part of their share of this turn."""
        self._runs = False

    def add(self, connection: QueuedConnection) -> None:
        self.waiting.append(connection)

    def draw(self, project: Project, cost: int) -> None:
        """Charge a request to the share of `project` for this turn."""
        if project.share == SHARE:
            self.drawn.append(project)
        project.share -= cost

    def end_turn(self) -> None:
        if self.drawn:
            for project in self.drawn:
                project.share = SHARE
            self.drawn.clear()
        if self.waiting and not self._runs:
            self._runs = True
            self._loop.start(self._run())

    def _run(self) -> Job:
        """Once per turn, after all other work: serve the waiting connections in order, as far as
        their projects' shares allow."""
        try:
            while self.waiting:
                yield None
                connections, self.waiting = self.waiting, []
                too_early = []
                for connection in connections:
                    if connection.has_to_wait:
                        too_early.append(connection)
                    else:
                        try:
                            connection.go_on()
                        except Exception as error:
                            self._loop.on_bug(error)
                            connection.end_with(BUG.line())
                self.waiting[:0] = too_early
                self._outbox.flush()
        finally:
            self._runs = False
