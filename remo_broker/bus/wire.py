"""Convert D-Bus messages to bytes and back.

Only this module uses dbus-next; it contains its faults.

dbus-next 0.2.3 marshals well. We do not use its connection (`dbus_next.aio.MessageBus`), because:
- it spins on EOF while authenticating;
- it sends an exception's text and traceback to the caller;
- it reads as long as there is input: a flood starves timers and replies, which pile up;
- a message that it cannot parse kills it, and any local user can send one.

Guards around the rest:
- a call's body is parsed only if it has the method's signature;
- dbus-next caches parsed signatures forever: we empty the cache when it has too many;
- unknown header fields are skipped, where dbus-next would reject the message;
- any failure to parse becomes `BadMessage`.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dbus_next._private.constants import HeaderField
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.constants import MessageType
from dbus_next.signature import SignatureTree, Variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbus_next.message import Message

__all__ = [
    "ERROR",
    "FIXED_HEADER",
    "METHOD_CALL",
    "METHOD_RETURN",
    "NO_REPLY_EXPECTED",
    "SIGNAL",
    "BadMessage",
    "Incoming",
    "Variant",
    "encode",
    "encode_body",
    "frame_length",
    "header_length",
]

METHOD_CALL: Final = MessageType.METHOD_CALL.value
METHOD_RETURN: Final = MessageType.METHOD_RETURN.value
ERROR: Final = MessageType.ERROR.value
SIGNAL: Final = MessageType.SIGNAL.value

NO_REPLY_EXPECTED: Final = 1
# Our own calls must not start a service.
_NO_AUTO_START: Final = 2

# The fixed part of a header: byte order, type, flags, version, body length, serial, fields length.
FIXED_HEADER = 16
# The specification's limit for a message.
MAX_LENGTH = 128 * 1024 * 1024
# The most parsed signatures to cache. Our own messages need about thirty.
MAX_SIGNATURES = 200

_ORDER = {ord("l"): "<", ord("B"): ">"}
_HEADER_FIELDS = "a(yv)"
_KNOWN_FIELDS = frozenset(field.value for field in HeaderField)


class _HeaderUnmarshaller(Unmarshaller):
    """Skips unknown header fields, as the specification requires.

    Nothing else here has their type.
    """

    def read_argument(self, type_: Any) -> Any:
        value = super().read_argument(type_)  # type: ignore[no-untyped-call]
        if type_.signature == _HEADER_FIELDS:
            return [field for field in value if field[0] in _KNOWN_FIELDS]
        return value


# They have no type annotations.
_marshaller: Any = Marshaller
_reader: Any = _HeaderUnmarshaller

# The header fields that we send, with code and type. The bus adds the sender.
_FIELDS = {
    "path": (1, "o"),
    "interface": (2, "s"),
    "member": (3, "s"),
    "error_name": (4, "s"),
    "reply_serial": (5, "u"),
    "destination": (6, "s"),
    "signature": (8, "g"),
}


class BadMessage(Exception):
    """The bytes are not a message, or not one that dbus-next can parse."""


@dataclass(frozen=True)
class Incoming:
    """A received message; absent header fields are empty."""

    kind: int
    flags: int
    serial: int
    reply_serial: int
    sender: str
    path: str
    interface: str
    member: str
    error_name: str
    signature: str
    frame: bytes

    def body(self) -> list[Any]:
        """The arguments. Raises BadMessage."""
        values = list(_unmarshal(self.frame).body)
        if bool(values) != bool(self.signature):  # dbus-next accepts any empty body
            raise BadMessage("a body that does not match its signature")
        return values


def frame_length(head: bytes | bytearray) -> int:
    """The length of the message with this start of `FIXED_HEADER` bytes. Raises BadMessage."""
    order = _ORDER.get(head[0])
    if order is None or head[3] != 1:
        raise BadMessage("the bus sent something that is not D-Bus")
    (body,) = struct.unpack_from(f"{order}I", head, 4)
    length: int = header_length(head) + body
    if length > MAX_LENGTH:
        raise BadMessage("the bus sent a message longer than D-Bus allows")
    return length


def header_length(head: bytes | bytearray) -> int:
    """The length of the message without its body. `frame_length` must have accepted `head`."""
    (fields,) = struct.unpack_from(f"{_ORDER[head[0]]}I", head, 12)
    return FIXED_HEADER + int(fields + 7) // 8 * 8


def decode(frame: bytes) -> Incoming:
    """Decode a message's header; the body may be missing. Raises BadMessage."""
    without_body = frame[:4] + bytes(4) + frame[8:]
    message = _unmarshal(without_body)
    texts: tuple[object, ...] = (message.sender, message.path, message.interface, message.member, message.error_name)
    answered: object = message.reply_serial or 0
    if not all(one is None or isinstance(one, str) for one in texts) or type(answered) is not int:
        raise BadMessage("a header field of another type")
    return Incoming(
        kind=message.message_type.value,
        flags=int(message.flags),
        serial=message.serial,
        reply_serial=message.reply_serial or 0,
        sender=message.sender or "",
        path=message.path or "",
        interface=message.interface or "",
        member=message.member or "",
        error_name=message.error_name or "",
        signature=message.signature,
        frame=frame,
    )


def encode_body(signature: str, values: Sequence[object]) -> bytes:
    """Encode a message's body. Structures are lists, variants `Variant`s."""
    return bytes(_marshaller(signature, list(values)).marshall())


def encode(kind: int, serial: int, signature: str = "", body: bytes = b"", **fields: str | int) -> bytes:
    """Encode a whole message.

    `fields` are header fields, named as in `Incoming`; empty ones are omitted.
    """
    variants = []
    for name, value in {**fields, "signature": signature}.items():
        if value:
            code, type_of_field = _FIELDS[name]
            variants.append([code, Variant(type_of_field, value)])
    flags = _NO_AUTO_START if kind == METHOD_CALL else NO_REPLY_EXPECTED
    header = _marshaller(f"yyyyuu{_HEADER_FIELDS}", [ord("l"), kind, flags, 1, len(body), serial, variants])
    header.marshall()
    header.align(8)
    return bytes(header.buffer) + body


def _unmarshal(frame: bytes) -> Message:
    try:
        message: Message | None = _reader(io.BytesIO(frame)).unmarshall()
    except Exception as error:  # noqa: BLE001 - any failure is the sender's fault
        raise BadMessage(type(error).__name__) from None
    finally:
        if len(SignatureTree._cache) > MAX_SIGNATURES:
            SignatureTree._cache.clear()
    if message is None:
        raise BadMessage("a message shorter than its header says")
    return message
