"""The listeners of the host's sockets (admin, status, credentials): handed over by systemd, or
bound here."""

from __future__ import annotations

import os

from remo_broker.binder import files
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.listener import CONTROL_MODE, Listener, is_held_by_unit, unlink
from remo_broker.protocol.codes import Code, Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable

    from remo_broker.broker.loop import Loop
    from remo_broker.broker.sockets.connection import Peer


class ControlListeners:
    """The listeners by the names of their descriptors. False while there are none."""

    def __init__(self, loop: Loop, socket_dir: str) -> None:
        self._loop = loop
        self._socket_dir = socket_dir
        self._listeners: dict[str, Listener] = {}
        self._own_paths: list[str] = []
        """What this process bound, to be removed on exit."""

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def __contains__(self, name: str) -> bool:
        return name in self._listeners

    def adopt(
        self,
        name: str,
        listening: _socket.socket,
        accepted: Callable[[Accepted, Peer], None],
        may_accept: Callable[[], bool] | None = None,
    ) -> None:
        """Serve a listener that was handed over."""
        held = is_held_by_unit(listening)
        self._listeners[name] = Listener(self._loop, listening, accepted, held_by_unit=held, may_accept=may_accept)

    def bind(self, name: str, file: str, accepted: Callable[[Accepted, Peer], None]) -> None:
        """Bind the socket unless it was handed over. Raises `Refused`."""
        if name in self._listeners:
            return
        path = os.path.join(self._socket_dir, file)
        try:
            listening = files.listen(path, CONTROL_MODE)
        except files.Unavailable as problem:
            raise Refused(Code.INTERNAL_ERROR, Reason.SOCKET_UNAVAILABLE, str(problem)) from None
        self._listeners[name] = Listener(self._loop, listening, accepted)
        self._own_paths.append(path)

    @property
    def all_held_by_units(self) -> bool:
        """Whether a connect to any of them would start the broker again."""
        return all(listener.held_by_unit for listener in self._listeners.values())

    def stop(self) -> None:
        """Accept no more connections, except those that would otherwise be reset."""
        for listener in self._listeners.values():
            if not listener.held_by_unit:
                listener.take_waiting()
            listener.close()

    def remove_own(self) -> None:
        for path in self._own_paths:
            unlink(path)
