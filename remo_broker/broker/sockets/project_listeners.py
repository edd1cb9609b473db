"""The projects' sockets: which listener serves which project, and who of those who connect becomes a client."""

from __future__ import annotations

import os
import socket
from functools import partial

from remo_broker.broker import decisions
from remo_broker.broker.audit import identity
from remo_broker.broker.rate import Bucket
from remo_broker.broker.sockets.connection import Peer
from remo_broker.broker.sockets.listener import (
    Door,
    Listener,
    Origin,
    bind,
    leads_to,
    unlink,
)
from remo_broker.broker.sockets.project import ProjectConnection
from remo_broker.broker.sockets.refused import Reader, Stranger, refused_peer_record, unregistered_record
from remo_broker.protocol import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    """All listeners of one name; more than one when a socket unit and the descriptor store both hold one, or when a socket was
    removed and made anew."""

    __slots__ = ("listeners", "refusals", "strangers")

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.strangers = 0
        self.refusals = Bucket(STRANGERS_PER_SECOND, STRANGERS_BURST)


class Endpoints:
    def __init__(self, server: ProjectServer, manager: Manager, max_descriptors: int) -> None:
        self.server = server
        self.last_activity = server.loop.now
        """When somebody last connected, on the loop's clock."""
        self._manager = manager
        self._max_descriptors = max_descriptors - RESERVED_DESCRIPTORS
        self._endpoints: dict[str, Endpoint] = {}
        self._prepared: dict[str, socket.socket] = {}
        """Listening, but not looked at yet: the registration is being saved."""
        self._strangers = 0
        self._stopped = False
        self._reader = Reader(server.loop)
        self._door = Door(server.loop, server.sweeper)

    @property
    def connections(self) -> int:
        return len(self.server.connections) + self._strangers

    @property
    def only_held_by_manager(self) -> bool:
        """Whether a connect on any of the sockets would start the broker again."""
        return all(one.origin is Origin.UNIT for endpoint in self._endpoints.values() for one in endpoint.listeners)

    def adopt(self, name: str, listening: socket.socket, origin: Origin) -> Listener:
        """Serve a socket that was handed over, or bound."""
        listener = Listener(self.server.loop, listening, partial(self._accepted, name), origin)
        self._endpoints.setdefault(name, Endpoint()).listeners.append(listener)
        return listener

    def open(self, name: str) -> None:
        """Make sure that the project `name` is served. Raises `Refused`."""
        self.prepare(name)
        self.serve(name)

    def prepare(self, name: str) -> None:
        """Make sure that the project `name` can be connected to; who does waits for `serve`. Raises `Refused`."""
        if name not in self._endpoints or self._is_lost(name):
            self._prepared[name] = bind(self._path(name))

    def _is_lost(self, name: str) -> bool:
        """Whether somebody has removed the socket of `name`. It is still served: a container may have it mounted."""
        path = self._path(name)
        return any(one.path == path for one in self._endpoints[name].listeners) and not os.path.lexists(path)

    def serve(self, name: str) -> None:
        """Accept who connects, if that is not so yet."""
        listening = self._prepared.pop(name, None)
        if listening is not None:
            listener = self.adopt(name, listening, Origin.BROKER)
            self._manager.keep(name, listening.fileno())
            if self._stopped:  # the manifest was being read; who connects waits for the next broker
                listener.close()

    def close(self, name: str) -> None:
        """Stop listening, but for what others have made: that is answered `not_registered` from now on."""
        prepared = self._prepared.pop(name, None)
        if prepared is not None:
            prepared.close()
            unlink(self._path(name))
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            return
        others = [one for one in endpoint.listeners if one.origin is not Origin.BROKER]
        for listener in endpoint.listeners:
            if listener.origin is Origin.BROKER:
                path = self._path(name)
                ours = leads_to(path, listener.socket)
                listener.close()
                self._manager.drop(name)
                if ours:
                    unlink(path)
        endpoint.listeners = others
        if not others:
            del self._endpoints[name]

    def drop_unregistered(self) -> list[str]:
        """At a start: forget stored listeners of projects that are no longer registered."""
        names = [name for name in self._endpoints if name not in self.server.broker.projects]
        for name in names:
            self.close(name)
        return [name for name in names if name not in self._endpoints]

    def stop(self) -> None:
        """No new connections; the sockets stay for whoever else holds them."""
        self._stopped = True
        for endpoint in self._endpoints.values():
            for listener in endpoint.listeners:
                listener.close()

    def _path(self, name: str) -> str:
        return paths.project_socket(self.server.broker.config.socket_dir, name)

    # --- accepting

    def _accepted(self, name: str, connection: socket.socket, peer: Peer) -> None:
        server = self.server
        self.last_activity = server.loop.now
        project = server.broker.projects.get(name)
        if project is None:
            fields = identity.peer_fields(connection, peer.pid, peer.uid, peer.gid)
            generation = server.broker.store.generation
            self._stranger(name, connection, decisions.NOT_REGISTERED, unregistered_record(name, fields, generation))
        elif not project.registration.admits(peer.uid):
            fields = identity.peer_fields(connection, peer.pid, peer.uid, peer.gid)
            self._stranger(name, connection, decisions.PEER_UNEXPECTED, refused_peer_record(name, fields))
        elif self._full(project):
            self._door.turn_away(connection)
        else:
            ProjectConnection(server, project, connection, peer)

    def _full(self, project: Project) -> bool:
        limit = self.server.broker.config.max_connections_per_project
        return project.connections >= limit or self.connections + len(self._endpoints) >= self._max_descriptors

    def _stranger(self, name: str, connection: socket.socket, answer: bytes, record_of: RecordOf) -> None:
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
