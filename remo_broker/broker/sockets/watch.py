"""Watch streams on the admin and project sockets: the current state of the store or of a project.

They carry states, not history: a slow reader gets several changes as one line. For a watcher that
does not read at all, the kernel buffers at most `SEND_BUFFER`; then the deadline of `PEER_SECONDS`
applies, as for any peer.
"""

from __future__ import annotations

import _socket
from itertools import islice

from remo_broker.broker.sockets.connection import Stream
from remo_broker.protocol.clock import now_usec
from remo_broker.protocol.message import encode
from remo_broker.protocol.replies import CLEARED, PUSHED, RELOADED, KeepAlive, ProjectState, StoreState
from remo_broker.protocol.shared_limits import KEEP_ALIVE_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import Job, Loop
    from remo_broker.broker.projects import Project
    from remo_broker.broker.sockets.connection import Connection

# About twenty lines; the kernel counts each with its overhead.
SEND_BUFFER = 16 * 1024
# Streams to write to in one turn; each takes about 5 µs.
STREAMS_PER_TURN = 64
# The lines to keep of a project: its state, and that with the last event.
KNOWN_STATES = 2

_KEEP_ALIVE = encode(KeepAlive().to_json())


class WatchStream(Stream):
    """Subclasses implement `line`: the state, with `event`, as it is sent."""

    def __init__(self, watchers: Watchers, connection: Connection) -> None:
        self._watchers = watchers
        self._connection = connection
        self._due = True
        self._event: str | None = None
        connection.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, SEND_BUFFER)
        watchers.sends(self)

    def line(self, event: str | None) -> bytes:
        raise NotImplementedError

    def changed(self, event: str) -> None:
        """The state has changed as `event` says: send it now, or when the socket accepts more."""
        self._due = True
        self._event = event
        if not self._connection.pending:
            self.send_new()

    def send_new(self) -> None:
        if self._due and not self._connection.ending:
            self._due = False
            self._send(self.line(self._event))

    def _send(self, line: bytes) -> None:
        self._watchers.sends(self)
        self._connection.send(line)

    def keep_alive(self) -> None:
        """Send an empty object. To a peer that has not read the last line, nothing is sent."""
        if self._connection.pending:
            self._watchers.sends(self)
        else:
            self._send(_KEEP_ALIVE)

    def closed(self) -> None:
        self._watchers.streams.pop(self, None)


class StoreStream(WatchStream):
    """The stream on the admin socket."""

    def line(self, event: str | None) -> bytes:
        store = self._watchers.broker.store
        state = StoreState(
            start_usec=self._watchers.start_usec,
            generation=store.generation,
            secret_count=store.secret_count,
            secrets_loaded_usec=store.loaded_usec,
            event=event,
        )
        return encode(state.to_json())


class ProjectStream(WatchStream):
    """The stream on a project's socket."""

    def __init__(self, watchers: Watchers, connection: Connection, project: Project) -> None:
        super().__init__(watchers, connection)
        self.project = project

    def line(self, event: str | None) -> bytes:
        """Encoded once for all streams: with ten thousand names that takes a millisecond or
        more."""
        store, project = self._watchers.broker.store, self.project
        known = store.generation, store.snapshot is not None, event
        if known not in project.state_lines:
            if len(project.state_lines) >= KNOWN_STATES:
                project.state_lines.clear()
            state = ProjectState(
                project=project.name,
                start_usec=self._watchers.start_usec,
                generation=known[0],
                ready=known[1],
                allowlist=list(project.registration.allowlist),
                event=event,
            )
            project.state_lines[known] = encode(state.to_json())
        return project.state_lines[known]


class Watchers:
    """All watch streams, on both kinds of sockets."""

    def __init__(self, loop: Loop, broker: Decisions) -> None:
        self.loop = loop
        self.broker = broker
        self.start_usec = now_usec()
        """Lets watchers distinguish one broker process from the next."""
        self.streams: dict[WatchStream, float] = {}
        """When each has sent a line last, the earliest first. No timer of its own: one that waits
        would keep a connection that is closed."""
        self._armed = False

    def sends(self, stream: WatchStream) -> None:
        """Note that the stream begins, or sends a line."""
        self.streams.pop(stream, None)
        self.streams[stream] = self.loop.now
        self._arm()

    def _arm(self) -> None:
        if self.streams and not self._armed:
            self._armed = True
            earliest = next(iter(self.streams.values()))
            self.loop.after(max(0.0, earliest + KEEP_ALIVE_SECONDS - self.loop.now), self._keep_alive)

    def _keep_alive(self) -> None:
        self._armed = False
        try:
            for stream, sent_at in list(islice(self.streams.items(), STREAMS_PER_TURN)):
                if self.loop.now - sent_at >= KEEP_ALIVE_SECONDS:
                    stream.keep_alive()
        finally:
            self._arm()

    def pushed(self) -> None:
        self._changed(self.streams, PUSHED)

    def cleared(self) -> None:
        self._changed(self.streams, CLEARED)

    def reloaded(self, project: Project) -> None:
        self._changed(
            [one for one in self.streams if isinstance(one, ProjectStream) and one.project is project], RELOADED
        )

    def _changed(self, streams: Iterable[WatchStream], event: str) -> None:
        waiting = list(streams)
        if waiting:
            self.loop.start(self._in_steps(waiting, event))

    def _in_steps(self, waiting: list[WatchStream], event: str) -> Job:
        """Notify some streams per turn, beginning at the end of this one, so that other clients do
        not wait for all of them."""
        while waiting:
            for stream in waiting[:STREAMS_PER_TURN]:
                if stream in self.streams:
                    stream.changed(event)
            del waiting[:STREAMS_PER_TURN]
            yield None
