"""The projects' sockets: which listener serves which project, and which peers are admitted as
clients.

A listener belongs to one registration and is revoked when the project is unregistered. Registering
a project first revokes all listeners under its name, so a listener older than a registration is
never served. Revoking means shutdown(2): it shuts the listener down for all its holders, wherever
its file is mounted, and cannot be undone.
"""

from __future__ import annotations

import _socket
from functools import partial

from remo_broker.binder import files
from remo_broker.broker import decisions
from remo_broker.broker.audit import identity
from remo_broker.broker.rate import Bucket
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.binder import Binder
from remo_broker.broker.sockets.connection import Peer
from remo_broker.broker.sockets.listener import (
    FULL_SECONDS,
    Listener,
    Overflow,
    is_bound,
    is_held_by_unit,
    is_revoked,
    revoke,
)
from remo_broker.broker.sockets.project import ProjectConnection
from remo_broker.broker.sockets.refused_peers import LineReader, RefusedConnection, RefusedPeers, unregistered_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from remo_broker.broker.loop import Later
    from remo_broker.broker.projects import Project
    from remo_broker.broker.sockets.project import ProjectServer
    from remo_broker.broker.sockets.refused_peers import RecordOf
    from remo_broker.broker.systemd import Manager

# Limits for connections on one socket that will be refused: at one time, per second, and in a
# burst. Further ones are closed without a reply, because each costs a journal record.
MAX_REFUSED = 16
REFUSED_PER_SECOND = 50
REFUSED_BURST = 200
# How often to look whether a project that has all its connections has room again, before the first
# further peer is refused: 0.5 s, in which they wait in the queue. After it, one is refused at every
# other look. If the broker, its peers or the machine were held up, more peers wait than may be
# connected at a time, but most leave after one reply.
LOOKS_FOR_ROOM = 250
# Descriptors reserved from clients: 40 for connections of operators and watchers, as many for the
# secret memory of their input and of the store, 3 times 16 for excess connections that get an error
# reply, a dozen for the broker itself (control listeners, journal, loop), pipes of manifest
# readers, and the state file.
RESERVED_DESCRIPTORS = 192


class ProjectSockets:
    """All listeners of one name. There can be more than one of a kind: a socket unit and the
    descriptor store may both hold one, or a socket may have been removed and recreated."""

    __slots__ = ("listeners", "refusals", "refused")

    def __init__(self) -> None:
        self.listeners: list[tuple[str, Listener]] = []
        """Pairs of kind and listener."""
        self.refused = 0
        self.refusals = Bucket(REFUSED_PER_SECOND, REFUSED_BURST)


class ProjectListeners:
    """`say` logs one sentence for the operator."""

    def __init__(
        self, server: ProjectServer, manager: Manager, max_descriptors: int, log: Callable[[str], None]
    ) -> None:
        self.server = server
        self.last_activity = server.loop.now
        """When a peer last connected, on the loop's clock."""
        self.binder = Binder(server.loop, server.broker.config.socket_dir)
        self._manager = manager
        self._log = log
        self._most = server.broker.config.max_connections_per_project
        self._max_descriptors = max_descriptors - RESERVED_DESCRIPTORS
        self._listeners: dict[str, ProjectSockets] = {}
        self._listener_count = 0
        self._prepared: dict[str, dict[str, _socket.socket]] = {}
        """Listening, but not served yet: the registration is being saved."""
        self._refused = 0
        self._stopped = False
        self._reader = LineReader(server.loop)
        self.refusals = RefusedPeers(server.loop, server.trail)
        self._overflow = Overflow(server.loop, server.sweeper)

    @property
    def connections(self) -> int:
        return len(self.server.connections) + self._refused

    @property
    def only_held_by_manager(self) -> bool:
        """Whether socket units hold all sockets, so that a connect to any of them starts the broker
        again."""
        return all(one.held_by_unit for endpoint in self._listeners.values() for _, one in endpoint.listeners)

    # --- which listeners there are

    def adopt(self, kind: str, name: str, listening: _socket.socket, *, handed_over: bool = False) -> None:
        """Serve a new socket, or one that was passed (`handed_over`) unless it has been revoked."""
        if handed_over and is_revoked(listening):
            listening.close()
            return
        listener = Listener(
            self.server.loop,
            listening,
            partial(self._accepted, name),
            pause_seconds=FULL_SECONDS,
            held_by_unit=handed_over and is_held_by_unit(listening),
            # A unit that was started and stopped since has left its file at the path of one from
            # the store.
            has_file=not handed_over or is_bound(str(listening.getsockname())),
        )
        self._listeners.setdefault(name, ProjectSockets()).listeners.append((kind, listener))
        self._listener_count += 1
        if self._stopped:  # registered while the broker stops; clients wait for the next broker
            self._accept_no_more(listener)

    def open_at_start(self, name: str, owner: str) -> None:
        """Create the missing sockets of a registered project. Raises `Refused`."""
        kinds = list(self._missing(name))
        if kinds:
            self._adopt_and_keep(name, self.binder.make_now(name, owner, kinds))

    def prepare(self, name: str, owner: str) -> Generator[Later | None, Any, None]:
        """Revoke all listeners of the name and create new sockets; clients that connect to them
        wait for `serve`. Raises `Refused`."""
        self._revoke(name)
        try:
            self._prepared[name] = yield from self.binder.make(name, owner, files.KINDS, renew=True)
        except Refused:
            yield from self.close(name, owner)  # one of the two may exist
            raise

    def serve(self, name: str) -> None:
        """Accept connections on the prepared sockets."""
        self._adopt_and_keep(name, self._prepared.pop(name))

    def repair(self, name: str, owner: str) -> Generator[Later | None, Any, None]:
        """Recreate sockets whose files were removed. The old ones are still served: a container may
        have them mounted. Raises `Refused`."""
        kinds = list(self._missing(name))
        if kinds:
            made = yield from self.binder.make(name, owner, kinds, renew=False)
            self._adopt_and_keep(name, made)

    def close(self, name: str, owner: str) -> Generator[Later | None, Any, None]:
        """Revoke all listeners of a project, regardless of who created them, and remove their
        files."""
        self._revoke(name)
        try:
            yield from self.binder.remove(name, owner)
        except Refused as refusal:
            self._log(f"The socket files of project {name} were not removed: {refusal.message}")

    def drop_unregistered(self) -> list[str]:
        """At startup: revoke stored listeners of unregistered projects; returns their names.
        Listeners that socket units hold stay and answer `not_registered`: systemd takes them for
        alive, and their clients may already be waiting."""
        names = []
        for name in [name for name in self._listeners if name not in self.server.broker.projects]:
            endpoint = self._listeners[name]
            if not all(one.held_by_unit for _, one in endpoint.listeners):
                names.append(name)
                self._revoke(name, stored_only=True)
                try:
                    self.binder.remove_now(name, "/")
                except Refused as refusal:
                    self._log(f"The socket files of {name} were not removed: {refusal.message}")
        return names

    def stop(self) -> None:
        """Accept no more connections; systemd keeps the sockets that it holds. An operator's request
        that is being answered may still revoke them."""
        self._stopped = True
        for endpoint in self._listeners.values():
            for _, listener in endpoint.listeners:
                if not self._manager.is_there:
                    listener.take_waiting()
                self._accept_no_more(listener)

    def _accept_no_more(self, listener: Listener) -> None:
        if self._manager.is_there or listener.held_by_unit:
            listener.rest()  # closed, it could not be revoked
        else:
            listener.close()

    def unserved(self, name: str) -> str | None:
        """The path of a socket of the project that clients cannot connect to, or None."""
        for kind in self._missing(name):
            return files.socket_path(self.server.broker.config.socket_dir, kind, name)
        return None

    def _missing(self, name: str) -> Iterator[str]:
        """The kinds for which no listener of `name` is at its path."""
        endpoint = self._listeners.get(name)
        listeners = endpoint.listeners if endpoint is not None else []
        for kind in files.KINDS:
            if not any(one.is_at_its_path for its_kind, one in listeners if its_kind == kind):
                yield kind

    def _adopt_and_keep(self, name: str, made: dict[str, _socket.socket]) -> None:
        for kind, listening in made.items():
            self._manager.keep(kind, name, listening.fileno())
            self.adopt(kind, name, listening)

    def _revoke(self, name: str, *, stored_only: bool = False) -> None:
        for listening in self._prepared.pop(name, {}).values():
            revoke(listening)
            listening.close()
        endpoint = self._listeners.get(name)
        if endpoint is None:
            return
        listeners, endpoint.listeners = endpoint.listeners, []
        for kind, listener in listeners:
            if stored_only and listener.held_by_unit:
                endpoint.listeners.append((kind, listener))
                continue
            self._listener_count -= 1
            listener.revoke()
            if not listener.held_by_unit:
                self._manager.drop(kind, name)
        if not endpoint.listeners:
            del self._listeners[name]

    # --- accepting

    def _accepted(self, name: str, connection: Accepted, peer: Peer) -> None:
        server = self.server
        self.last_activity = server.loop.now
        project = server.broker.projects.get(name)
        if project is None or project.dismissed:
            fields = identity.peer_fields(connection, peer, server.loop.turns)
            generation = server.broker.store.generation
            record_of = unregistered_record(name, fields, generation, server.long_names)
            self._refuse(name, connection, decisions.NOT_REGISTERED, record_of)
        elif not project.registration.admits(peer.uid):
            fields = identity.peer_fields(connection, peer, server.loop.turns)
            self.refusals.add(name, peer.uid, fields)
            self._refuse(name, connection, decisions.PEER_UNEXPECTED, None)
        elif self._full(project):
            self._overflow.refuse(connection)
        else:
            ProjectConnection(server, project, connection, peer)
            if project.connections >= self._most:
                self._hold_back(name, project)

    def _hold_back(self, name: str, project: Project) -> None:
        """Let further peers of `project`, which has all its connections, wait for a while."""
        listeners = [listener for _, listener in self._listeners[name].listeners]
        looks = 0

        def may_accept() -> bool:
            nonlocal looks
            looks += 1
            if project.connections >= self._most and not self._stopped:
                if looks <= LOOKS_FOR_ROOM:
                    return False
                looks = LOOKS_FOR_ROOM - 1
                return True
            for listener in listeners:
                listener.may_accept = None
            return True

        for listener in listeners:
            listener.may_accept = may_accept

    def _full(self, project: Project) -> bool:
        all_connections = len(self.server.connections) + self._refused
        return project.connections >= self._most or all_connections + self._listener_count >= self._max_descriptors

    def _refuse(self, name: str, connection: Accepted, answer: bytes, record_of: RecordOf | None) -> None:
        endpoint = self._listeners[name]
        if endpoint.refused >= MAX_REFUSED or not endpoint.refusals.take(self.server.loop.now):
            connection.close()
            return
        endpoint.refused += 1
        self._refused += 1

        def gone() -> None:
            endpoint.refused -= 1
            self._refused -= 1

        server = self.server
        RefusedConnection(server.loop, server.sweeper, server.trail, self._reader, connection, answer, record_of, gone)
