"""The projects' sockets: which listener serves which project, and which of those who connect become clients.

A listener belongs to one registration. It is revoked when the project is unregistered, and what listens under a name when a
project is registered under it is revoked first: so a listener that is older than a registration is never served. To revoke
is shutdown(2), which ends the listener itself, for all who hold it and wherever its file is mounted, and cannot be undone.
"""

from __future__ import annotations

import socket
from functools import partial

from remo_broker.binder import files
from remo_broker.broker import decisions
from remo_broker.broker.audit import identity
from remo_broker.broker.rate import Bucket
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.binder import Binder
from remo_broker.broker.sockets.connection import Peer
from remo_broker.broker.sockets.listener import Door, Listener, is_held_by_unit, is_revoked, revoke
from remo_broker.broker.sockets.project import ProjectConnection
from remo_broker.broker.sockets.refused import Reader, RefusedPeers, Stranger, unregistered_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept makes
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from remo_broker.broker.loop import Later
    from remo_broker.broker.projects import Project
    from remo_broker.broker.sockets.project import ProjectServer
    from remo_broker.broker.sockets.refused import RecordOf
    from remo_broker.broker.systemd import Manager

# Connections on one socket that are going to be refused: so many at a time and a second; what is beyond is closed
# without a word, as each costs a record in the journal.
MAX_STRANGERS = 16
STRANGERS_PER_SECOND = 50
STRANGERS_BURST = 200
# Descriptors that clients may not take: 40 connections of operators and onlookers, as many for the secret memory of what
# they send and of the store, 3 times 16 that are turned away, a dozen of the broker's own (control listeners, journal,
# loop), pipes of manifest readers, the state file.
RESERVED_DESCRIPTORS = 192


class Endpoint:
    """All listeners of one name; more than one of a kind when a socket unit and the descriptor store both hold one, or when a
    socket was removed and made again."""

    __slots__ = ("listeners", "refusals", "strangers")

    def __init__(self) -> None:
        self.listeners: list[tuple[str, Listener]] = []
        """Each with its kind."""
        self.strangers = 0
        self.refusals = Bucket(STRANGERS_PER_SECOND, STRANGERS_BURST)


class Endpoints:
    """`say` logs one sentence for the operator."""

    def __init__(
        self, server: ProjectServer, manager: Manager, max_descriptors: int, say: Callable[[str], None]
    ) -> None:
        self.server = server
        self.last_activity = server.loop.now
        """When somebody last connected, on the loop's clock."""
        self.binder = Binder(server.loop, server.broker.config.socket_dir)
        self._manager = manager
        self._say = say
        self._max_descriptors = max_descriptors - RESERVED_DESCRIPTORS
        self._endpoints: dict[str, Endpoint] = {}
        self._listener_count = 0
        self._prepared: dict[str, dict[str, socket.socket]] = {}
        """Listening, but not looked at yet: the registration is being saved."""
        self._strangers = 0
        self._stopped = False
        self._reader = Reader(server.loop)
        self._refusals = RefusedPeers(server.loop, server.trail)
        self._door = Door(server.loop, server.sweeper)

    @property
    def connections(self) -> int:
        return len(self.server.connections) + self._strangers

    @property
    def only_held_by_manager(self) -> bool:
        """Whether a connect on any of the sockets would start the broker again."""
        return all(one.held_by_unit for endpoint in self._endpoints.values() for _, one in endpoint.listeners)

    # --- which listeners there are

    def adopt(self, kind: str, name: str, listening: socket.socket, *, handed_over: bool = False) -> None:
        """Serve a socket that was made, or handed over unless it was revoked before."""
        if handed_over and is_revoked(listening):
            listening.close()
            return
        listener = Listener(
            self.server.loop,
            listening,
            partial(self._accepted, name),
            held_by_unit=handed_over and is_held_by_unit(listening),
        )
        self._endpoints.setdefault(name, Endpoint()).listeners.append((kind, listener))
        self._listener_count += 1
        if self._stopped:  # the project was registered while the broker ends; who connects waits for the next one
            listener.close()

    def open_at_start(self, name: str, owner: str) -> None:
        """Make those sockets of a registered project that are missing. Raises `Refused`."""
        kinds = list(self._missing(name))
        if kinds:
            self._adopt_and_keep(name, self.binder.make_now(name, owner, kinds))

    def prepare(self, name: str, owner: str) -> Generator[Later | None, Any, None]:
        """Revoke what listens under the name, and make new sockets; who connects to them waits for `serve`. Raises
        `Refused`."""
        self._revoke(name)
        try:
            self._prepared[name] = yield from self.binder.make(name, owner, files.KINDS, renew=True)
        except Refused:
            yield from self.close(name, owner)  # one of the two may have been made
            raise

    def serve(self, name: str) -> None:
        """Accept who connects to what was prepared."""
        self._adopt_and_keep(name, self._prepared.pop(name))

    def repair(self, name: str, owner: str) -> Generator[Later | None, Any, None]:
        """Make sockets again that somebody has removed. The old ones are still served: a container may have them mounted.
        Raises `Refused`."""
        kinds = list(self._missing(name))
        if kinds:
            made = yield from self.binder.make(name, owner, kinds, renew=False)
            self._adopt_and_keep(name, made)

    def close(self, name: str, owner: str) -> Generator[Later | None, Any, None]:
        """Revoke all listeners of a project, whoever made them, and remove their files."""
        self._revoke(name)
        try:
            yield from self.binder.remove(name, owner)
        except Refused as refusal:
            self._say(f"The socket files of project {name} were not removed: {refusal.message}")

    def drop_unregistered(self) -> list[str]:
        """At a start: forget stored listeners of projects that are not registered. What a unit holds is answered
        `not_registered`."""
        names = []
        for name in [name for name in self._endpoints if name not in self.server.broker.projects]:
            endpoint = self._endpoints[name]
            if not all(one.held_by_unit for _, one in endpoint.listeners):
                names.append(name)
                self._revoke(name)
                try:
                    self.binder.remove_now(name, "/")
                except Refused as refusal:
                    self._say(f"The socket files of {name} were not removed: {refusal.message}")
        return names

    def stop(self) -> None:
        """Take no more connections; systemd keeps the sockets that it holds."""
        self._stopped = True
        for endpoint in self._endpoints.values():
            for _, listener in endpoint.listeners:
                if not self._manager.is_there:
                    listener.take_waiting()
                listener.close()

    def unserved(self, name: str) -> str | None:
        """The path of a socket of the project that nobody can connect to, if there is one."""
        for kind in self._missing(name):
            return files.socket_path(self.server.broker.config.socket_dir, kind, name)
        return None

    def _missing(self, name: str) -> Iterator[str]:
        """The kinds of which no listener of `name` is where it should be."""
        endpoint = self._endpoints.get(name)
        listeners = endpoint.listeners if endpoint is not None else []
        for kind in files.KINDS:
            if not any(one.is_at_its_path for its_kind, one in listeners if its_kind == kind):
                yield kind

    def _adopt_and_keep(self, name: str, made: dict[str, socket.socket]) -> None:
        for kind, listening in made.items():
            self._manager.keep(kind, name, listening.fileno())
            self.adopt(kind, name, listening)

    def _revoke(self, name: str) -> None:
        for listening in self._prepared.pop(name, {}).values():
            revoke(listening)
            listening.close()
        endpoint = self._endpoints.pop(name, None)
        if endpoint is None:
            return
        self._listener_count -= len(endpoint.listeners)
        for kind, listener in endpoint.listeners:
            listener.revoke()
            if not listener.held_by_unit:
                self._manager.drop(kind, name)

    # --- accepting

    def _accepted(self, name: str, connection: Accepted, peer: Peer) -> None:
        server = self.server
        self.last_activity = server.loop.now
        project = server.broker.projects.get(name)
        if project is None:
            fields = identity.peer_fields(connection, peer.pid, peer.uid, peer.gid)
            generation = server.broker.store.generation
            self._stranger(name, connection, decisions.NOT_REGISTERED, unregistered_record(name, fields, generation))
        elif not project.registration.admits(peer.uid):
            fields = identity.peer_fields(connection, peer.pid, peer.uid, peer.gid)
            self._refusals.add(name, peer.uid, fields)
            self._stranger(name, connection, decisions.PEER_UNEXPECTED, None)
        elif self._full(project):
            self._door.turn_away(connection)
        else:
            ProjectConnection(server, project, connection, peer)

    def _full(self, project: Project) -> bool:
        limit = self.server.broker.config.max_connections_per_project
        all_connections = len(self.server.connections) + self._strangers
        return project.connections >= limit or all_connections + self._listener_count >= self._max_descriptors

    def _stranger(self, name: str, connection: Accepted, answer: bytes, record_of: RecordOf | None) -> None:
        endpoint = self._endpoints[name]
        if endpoint.strangers >= MAX_STRANGERS or not endpoint.refusals.take(self.server.loop.now):
            connection.close()
            return
        endpoint.strangers += 1
        self._strangers += 1

        def gone() -> None:
            endpoint.strangers -= 1
            self._strangers -= 1

        server = self.server
        Stranger(server.loop, server.sweeper, server.trail, self._reader, connection, answer, record_of, gone)
