"""Descriptors that peers pass (SCM_RIGHTS). The broker has no use for them, and must not even
discard them.

The process that drops the last reference to a file closes it, which can take arbitrarily long, as
with a TCP socket with SO_LINGER or a file of a FUSE server. Reading or closing a connection with
such a descriptor in its queue would block the broker in that call. So the kernel refuses them, with
an error for the sender.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns

# The option's number, which Python does not have. Linux 6.16 and later.
SO_PASSRIGHTS = 83
# The number of another option that Python does not have: where a peek begins. Each moves it on.
SO_PEEK_OFF = 42
# How much of a queue to look at with one call.
CHUNK = 64 * 1024


def refuse_descriptors(one: Accepted) -> bool:
    """Have the kernel refuse descriptors for this socket or, for a listener, for what connects to it
    from now on. Returns whether it took them before."""
    try:
        before = one.getsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS)
        one.setsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False  # an older kernel
    return bool(before)


def take_out(connection: Accepted) -> bool:
    """End a connection whose peer has sent descriptors before they were refused. Returns whether it
    has. It is neither read nor closed, and stays until the process ends."""
    refuse_descriptors(connection)
    try:
        if not _has_descriptors(connection):
            return False
    except OSError:
        return False  # the peer has closed
    connection.shutdown(_socket.SHUT_RDWR)
    connection.detach()
    return True


def _has_descriptors(connection: Accepted) -> bool:
    """Whether any are in the queue, wherever: one read ends at out-of-band data, and the next skips
    that."""
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
    connection.setsockopt(_socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    queue = bytearray(CHUNK)
    flags, count = 0, 1
    try:
        while count and not flags & _socket.MSG_CTRUNC:
            count, _, flags, _ = connection.recvmsg_into([queue], 0, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass  # that was all
    finally:
        queue[:] = bytes(len(queue))  # it may have held a push
        connection.setsockopt(_socket.SOL_SOCKET, SO_PEEK_OFF, -1)
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 0)
    return bool(flags & _socket.MSG_CTRUNC)
