"""How a project's sockets are created: by systemd's helper if systemd started the broker, else by
the broker itself.

With the helper, the broker has no write access to the sockets' directories, so neither it nor its
user can put anything there.
"""

from __future__ import annotations

import _socket
import json
import os
import stat

from remo_broker.binder import files
from remo_broker.broker import helper_process
from remo_broker.broker.refusals import Refused
from remo_broker.protocol import paths
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.names import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any

    from remo_broker.broker.helper_process import Answer
    from remo_broker.broker.loop import Later, Loop

# The helper takes about 70 ms to start, longer on a machine that swaps. An operator's command waits
# 30 s for the reply.
SECONDS = 10.0
# The helper's longest message is a path and a sentence.
MAX_REPLY = 4096


class Binder:
    """Creates and removes projects' sockets. `owner` is the directory of the registered project."""

    def __init__(self, loop: Loop, socket_dir: str) -> None:
        self._loop = loop
        self._socket_dir = socket_dir
        self._helper = paths.internal_socket(socket_dir, paths.BIND_SOCKET)
        self._delegates = os.path.isdir(os.path.dirname(self._helper))
        self._connection: _socket.socket | None = None
        """The connection to the helper during startup, when one helper process serves all
        projects."""

    def make(
        self, project: str, owner: str, kinds: Sequence[str], *, renew: bool
    ) -> Generator[Later | None, Any, dict[str, _socket.socket]]:
        """Create listening sockets and return them by kind. Raises `Refused`."""
        if not self._delegates:
            return self._make_here(project, owner, kinds, renew=renew)
        answer = yield from self._call(_request("make", project, owner, kinds=list(kinds), renew=renew))
        return _sockets(kinds, answer)

    def make_now(self, project: str, owner: str, kinds: Sequence[str]) -> dict[str, _socket.socket]:
        """`make` before the loop runs, for an existing registration."""
        if not self._delegates:
            return self._make_here(project, owner, kinds, renew=False)
        return _sockets(kinds, self._call_now(_request("make", project, owner, kinds=list(kinds), renew=False)))

    def remove(self, project: str, owner: str) -> Generator[Later | None, Any, None]:
        """Remove the files of a project's sockets. Raises `Refused`."""
        if self._delegates:
            _sockets((), (yield from self._call(_request("remove", project, owner))))
        else:
            self._remove_here(project, owner)

    def remove_now(self, project: str, owner: str) -> None:
        if self._delegates:
            _sockets((), self._call_now(_request("remove", project, owner)))
        else:
            self._remove_here(project, owner)

    def started(self) -> None:
        """Close the startup connection: the loop runs from now on."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _make_here(self, project: str, owner: str, kinds: Sequence[str], *, renew: bool) -> dict[str, _socket.socket]:
        made: dict[str, _socket.socket] = {}
        try:
            for kind in kinds:
                made[kind] = files.make(self._socket_dir, kind, project, owner, renew=renew)
        except files.Unavailable as problem:
            for one in made.values():
                one.close()
            raise _unavailable(str(problem)) from None
        return made

    def _remove_here(self, project: str, owner: str) -> None:
        try:
            files.remove(self._socket_dir, project, owner)
        except OSError as error:
            raise _unavailable(f"{error.filename}: {os.strerror(error.errno or 0)}") from None

    def _call(self, request: bytes) -> Generator[Later | None, Any, Answer]:
        try:
            answer = yield helper_process.Call(
                self._loop, helper_process.connect(self._helper), request, SECONDS, MAX_REPLY
            ).later
        except helper_process.HelperUnreachable as problem:
            answer = problem
        if isinstance(answer, helper_process.HelperUnreachable):
            raise self._unreachable(answer)
        return answer  # type: ignore[no-any-return]

    def _call_now(self, request: bytes) -> Answer:
        try:
            if self._connection is None:
                self._connection = helper_process.connect(self._helper)
            return helper_process.ask_now(self._connection, request, SECONDS)
        except helper_process.HelperUnreachable as problem:
            self.started()
            raise self._unreachable(problem) from None

    def _unreachable(self, problem: helper_process.HelperUnreachable) -> Refused:
        return _unavailable(
            f"the helper that creates sockets did not answer ({problem}); run 'systemctl start remo-broker-bind.socket' "
            "and see 'journalctl -u remo-broker-bind@*'"
        )


def _request(op: str, project: str, owner: str, **fields: object) -> bytes:
    return json.dumps({"op": op, "project": project, "owner": owner, **fields}).encode() + b"\n"


def _sockets(kinds: Sequence[str], answer: Answer) -> dict[str, _socket.socket]:
    """The listening sockets in a reply of the helper, one per kind. Raises `Refused`."""
    line, descriptors = answer
    message = "the helper that creates sockets sent a malformed reply"
    try:
        reply = json.loads(line)
        if reply["ok"] is True and len(descriptors) == len(kinds) and all(map(_is_socket, descriptors)):
            made = dict(zip(kinds, (_socket.socket(fileno=one) for one in descriptors), strict=True))
            for one in made.values():
                one.setblocking(False)
            return made
        message = printable(str(reply["message"]), MAX_REPLY)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    helper_process.close_all(descriptors)
    raise _unavailable(message)


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _unavailable(message: str) -> Refused:
    return Refused(Code.INTERNAL_ERROR, Reason.SOCKET_UNAVAILABLE, message)
