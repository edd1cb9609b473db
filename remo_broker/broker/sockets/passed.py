"""Descriptors that peers send along (SCM_RIGHTS). The broker has no use for them, and must not even
discard them.

Whoever drops the last reference to a file closes it, which takes as long as its maker likes: think
of a TCP socket with SO_LINGER, or a FUSE server. A process that reads or closes a connection with
such a descriptor in its queue does that in the middle of the call, and serves nobody meanwhile. So
the kernel refuses them, to the sender.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns

# The option's number, which Python does not have. Linux 6.16 and later.
SO_PASSRIGHTS = 83
# With the kernel's own settings, a connection's queue is shorter.
LONGEST_QUEUE = 256 * 1024


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
    queue = bytearray(LONGEST_QUEUE)
    try:
        _, _, flags, _ = connection.recvmsg_into([queue], 0, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
    except OSError:
        return False  # nothing was sent yet
    finally:
        queue[:] = bytes(len(queue))  # it may have held a push
    if not flags & _socket.MSG_CTRUNC:
        return False
    connection.shutdown(_socket.SHUT_RDWR)
    connection.detach()
    return True
