"""The connection through which `run` follows the broker: one open `watch` on the admin socket."""

from __future__ import annotations

from remo_broker.client.connection import connect
from remo_broker.client.errors import BadReply, ClientError, ConnectionLost
from remo_broker.client.exchange import build, encode, parse_object, refusal_in
from remo_broker.protocol import paths
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.ops import WatchStore
from remo_broker.protocol.replies import StoreState
from remo_broker.protocol.shared_limits import KEEP_ALIVE_SECONDS, MAX_MESSAGE

# A connect waits only if the backlog is full.
CONNECT_SECONDS = 5.0
# A broker silent for this long hangs, or the connection is dead: reconnect.
SILENCE_SECONDS = 2 * KEEP_ALIVE_SECONDS + 5


class BrokerWatch:
    """Raises `ClientError` when the broker cannot be reached."""

    def __init__(self, path: str) -> None:
        self._path = path
        deadline = monotonic() + CONNECT_SECONDS
        self._socket = connect(path, paths.ADMIN_SOCKET, deadline, CONNECT_SECONDS)
        self._lines = LineBuffer()
        try:
            self._socket.send(encode(WatchStore()))
        except OSError:
            self.close()
            raise ConnectionLost(path) from None

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[StoreState]:
        """What the broker has sent since the last call.

        Raises `ClientError` if the connection has ended.
        """
        try:
            data = self._socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise ConnectionLost(self._path)
        self._lines.feed(data)
        lines = list(iter(self._lines.next_line, None))
        if len(self._lines) > MAX_MESSAGE:
            raise BadReply(self._path, f"a line of more than {MAX_MESSAGE} bytes")
        return [state for line in lines if (state := self._state(line)) is not None]

    def _state(self, line: bytes) -> StoreState | None:
        fields = parse_object(self._path, line)
        if not fields:
            return None  # keep-alive
        if fields.get("ok") is not True:
            raise refusal_in(self._path, fields)
        return build(self._path, StoreState, fields)

    def close(self) -> None:
        self._socket.close()


__all__ = ["SILENCE_SECONDS", "BrokerWatch", "ClientError"]
