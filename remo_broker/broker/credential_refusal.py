"""How a unit is refused a credential.

The protocol cannot signal an error: if the stream ends without data, even with a reset, systemd
starts the unit with an empty credential. systemd rejects only a reply of more than 1 MiB, and fails
the unit at step CREDENTIALS. So a refusal is that long, and begins with the reason as text.
"""

from __future__ import annotations

import _socket
import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812 - the type that accept returns
    from collections.abc import Iterator

# systemd reads at most 1 MiB (CREDENTIALS_TOTAL_SIZE_MAX).
REFUSAL_BYTES = 1024 * 1024 + 1
# All refusals that wait for their peers share the blanks that follow the text.
_BLANKS = b" " * (64 * 1024)

# Marks a connection whose answer has begun. The kernel keeps the mark with the connection, so the
# next broker finds it. The priority itself means nothing to a Unix socket.
_BEGUN = 1
_SOL_SOCKET, _SO_PRIORITY = _socket.SOL_SOCKET, _socket.SO_PRIORITY


def pieces(unit: str, credential: str, why: str) -> Iterator[bytes]:
    """The parts of a refusal, `REFUSAL_BYTES` in all."""
    text = (
        f"remo-broker refused credential {credential or '?'} of unit {unit or '?'}: {why}. "
        "See: journalctl -u remo-broker.service\n"
    ).encode("ascii", "backslashreplace")
    yield text
    left = REFUSAL_BYTES - len(text)
    for _ in range(left // len(_BLANKS)):
        yield _BLANKS
    yield _BLANKS[: left % len(_BLANKS)]


def is_short_of_memory(error: OSError) -> bool:
    """Whether the kernel may accept the same output a moment later; if not, the peer has closed."""
    return error.errno in (errno.ENOBUFS, errno.ENOMEM)


def begin(connection: Socket) -> None:
    """Mark the connection. Call this before the first byte of any answer is sent."""
    connection.setsockopt(_SOL_SOCKET, _SO_PRIORITY, _BEGUN)


def has_begun(connection: Socket) -> bool:
    """Whether a broker, perhaps an earlier one, has begun to answer: its peer may have read a part
    of that."""
    return connection.getsockopt(_SOL_SOCKET, _SO_PRIORITY) == _BEGUN
