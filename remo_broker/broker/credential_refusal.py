"""How a unit is refused a credential.

The protocol cannot signal an error: if the stream ends without data, even with a reset, systemd
starts the unit with an empty credential. systemd rejects only a reply of more than 1 MiB, and fails
the unit at step CREDENTIALS. So a refusal is that long, and begins with the reason as text.
"""

from __future__ import annotations

import fcntl
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812 - the type that accept returns
    from collections.abc import Iterator

# systemd reads at most 1 MiB (CREDENTIALS_TOTAL_SIZE_MAX).
REFUSAL_BYTES = 1024 * 1024 + 1
# All refusals that wait for their peers share the blanks that follow the text.
_BLANKS = b" " * (64 * 1024)

# sockios.h: how much the peer has not read. The termios module has the number, and costs an import.
_SIOCOUTQ = 0x5411
_int = struct.Struct("i")


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


def has_unread(connection: Socket) -> bool:
    """Whether the peer has yet to read something that was sent to it."""
    (count,) = _int.unpack(fcntl.ioctl(connection.fileno(), _SIOCOUTQ, bytes(_int.size)))
    return bool(count)
