"""One connection of the credentials socket: how its answer is sent, and when it may be closed."""

from __future__ import annotations

from remo_broker.broker import credential_refusal
from remo_broker.broker.loop import WRITE
from remo_broker.broker.sockets.connection import PEER_SECONDS, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns

    from remo_broker.broker.loop import Loop, Timer
    from remo_broker.broker.secrets.memory import Arena, Region
    from remo_broker.broker.sockets.connection import Sweeper


# How long to wait before sending again what the kernel had no memory for.
MEMORY_SECONDS = 0.1


class CredentialConnections:
    """What a connection needs of the server that all belong to."""

    def __init__(self, loop: Loop, sweeper: Sweeper, arena: Arena) -> None:
        self.loop = loop
        self.sweeper = sweeper
        self.arena = arena

    def fail(self, asked: CredentialConnection) -> None:
        """Refuse after an internal error, recorded if that is possible."""
        raise NotImplementedError

    def silent(self, asked: CredentialConnection) -> None:
        """A peer outside its unit has not read its refusal in time."""
        raise NotImplementedError

    def left(self, asked: CredentialConnection) -> None:
        """The connection is closed."""
        raise NotImplementedError


class CredentialConnection(Connection):
    """One credential that a unit is loading. Input from the peer is discarded."""

    __slots__ = (
        "_half_closed",
        "credential",
        "due",
        "identity",
        "is_kept",
        "is_outside",
        "name",
        "region",
        "server",
        "timer",
        "unit",
    )

    def __init__(self, server: CredentialConnections, connection: Accepted, name: str) -> None:
        super().__init__(server.loop, server.sweeper, connection)
        self.server = server
        self.name = name
        """The connection's name in systemd's descriptor store."""
        self.unit = self.credential = ""
        self.is_kept = True
        """It is in systemd's descriptor store. Otherwise the peer is not systemd."""
        self.is_outside = False
        """The peer does not run in the unit's control group."""
        self._half_closed = False
        self.identity = b""
        """The audit record's fields that identify the peer."""
        self.due = 0.0
        """How long it may wait, on the loop's clock."""
        self.timer: Timer | None = None
        """Ends the wait."""
        self.region: Region | None = None
        """Contains the reply that is being sent."""

    def readable(self) -> None:
        try:
            if self.discard():
                return
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._half_closed:  # now fully closed: the unit is no longer being started
            self.close()
            return
        # systemd sends nothing and shuts down its side before it reads. With no event registered,
        # epoll still reports when the connection is fully closed.
        self._half_closed = True
        self.loop.change(self.fd, 0)

    def timed_out(self) -> None:
        """Close only after the whole reply was sent. If the peer, a process of root, does not read,
        closing would cut a refusal short, and systemd would take it as a credential."""
        if not self.ending:
            return
        if not self.pending or not self.is_kept:
            self.close()
        elif self.is_outside:
            self.server.silent(self)

    def send_failed(self, error: OSError) -> None:
        """If the kernel is short of memory, try again: systemd would take what a close cut short as
        a credential."""
        if not credential_refusal.is_short_of_memory(error):
            self.close()
            return
        self.want(0)
        self.loop.after(MEMORY_SECONDS, self._send_again)
        self.server.sweeper.set(self, PEER_SECONDS)

    def _send_again(self) -> None:
        if not self.closed:
            self.want(WRITE)

    def end_with(self, reply: bytes) -> None:  # noqa: ARG002 - for other sockets' peers
        """After an internal error: refuse, as the peer would take `reply` for its credential."""
        self.server.fail(self)

    def give(self, value: memoryview) -> None:
        """Send the value, then close."""
        self.ending = True
        credential_refusal.begin(self.socket)
        self.send([b"", value, b""])
        self._end_when_sent()

    def refuse(self, why: str) -> None:
        """Send a refusal, then close."""
        self.release()  # a refusal may wait for its peer, and the value must not wait with it
        self.ending = True
        if not self.closed:
            credential_refusal.begin(self.socket)
        for piece in credential_refusal.pieces(self.unit, self.credential, why):
            self.send([b"", piece, b""])
        self._end_when_sent()

    def _end_when_sent(self) -> None:
        if not self.closed and not self.pending:
            self.release()
            self.linger()

    def _finished_sending(self) -> None:
        super()._finished_sending()
        self.release()

    def release(self) -> None:
        """Overwrite the plain value, if there is one."""
        if self.region is not None:
            self.server.arena.give_back(self.region)
            self.region = None

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self.timer is not None:
                self.timer.cancel()
            self.release()
            self.server.left(self)
