"""Handler tables: which function answers which op on a kind of socket.

An op is one class in `protocol.ops` and one entry in the table of each socket in its `SOCKETS`.
Each table is checked when its module is imported, so an op without a handler is an error at start,
and no other op's handler can answer it.
"""

from __future__ import annotations

from remo_broker.protocol.ops import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Handler = TypeVar("Handler")


class Unhandled(Exception):
    """A handler table does not match the ops of its socket."""


def table(socket: str, handlers: dict[type[Request], Handler]) -> dict[type[Request], Handler]:
    """`handlers`, after checking that they match the ops of `socket`. Raises `Unhandled`."""
    ops = {cls for cls in Request.__subclasses__() if socket in cls.SOCKETS}
    missing, foreign = ops - handlers.keys(), handlers.keys() - ops
    if missing:
        raise Unhandled(f"no handler on the {socket} socket for: {_names(missing)}")
    if foreign:
        raise Unhandled(f"handlers for ops that the {socket} socket does not have: {_names(foreign)}")
    return handlers


def _names(ops: set[type[Request]]) -> str:
    return ", ".join(sorted(cls.OP or cls.__name__ for cls in ops))
