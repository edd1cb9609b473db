"""From a scanned line to a typed request."""

from __future__ import annotations

from remo_broker.broker.refusals import protocol_error
from remo_broker.broker.secrets.strict_json import ARRAY, LITERAL, NUMBER, OBJECT, STRING, text
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.message import FieldError, from_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from remo_broker.broker.secrets.strict_json import Buffer, Node
    from remo_broker.protocol.ops import Request

# Numbers in requests are uids, which have 32 bits.
MAX_DIGITS = 10

# What a field must be, by its annotation.
_WANTED = {
    "str": "a string",
    "int": "an integer, not negative",
    "bool": "true or false",
    "list": "a list of integers, none negative",
    "dict": "an object",
}
_OTHER = object()


def decode(data: Buffer, node: Node, requests: Mapping[str, type[Request]]) -> Request:
    """Turn `node` of `data` into a typed request, by its socket's table. Ignores unknown fields.

    Secret fields are only checked to be objects, and left out. Raises `Refused` (`protocol_error`).
    """
    kind, _, _, members = node
    if kind != OBJECT:
        raise protocol_error(Reason.NOT_AN_OBJECT, "a request must be a JSON object")
    op = members.get("op")
    if op is None:
        raise protocol_error(Reason.MISSING_FIELD, f"field op is missing; it must be one of {', '.join(requests)}")
    if op[0] != STRING:
        raise protocol_error(Reason.WRONG_TYPE, "field op must be a string")
    cls = requests.get(text(data, op[1], op[2]))
    if cls is None:
        raise protocol_error(Reason.UNKNOWN_OP, f"unknown op; the ops of this socket are {', '.join(requests)}")
    values = {}
    for name in cls.FIELDS:
        field = members.get(name)
        if field is not None:
            # Secrets stay in place: of their fields, only the kind is checked.
            secret = name in cls.SECRET_FIELDS
            values[name] = ({} if field[0] == OBJECT else _OTHER) if secret else _plain(data, field)
    try:
        return from_fields(cls, values)
    except FieldError as error:
        if error.missing:
            raise protocol_error(Reason.MISSING_FIELD, f"field {error.field} is missing; {cls.OP} needs it") from None
        wanted = _WANTED[error.kind.removesuffix(" | None").partition("[")[0]]
        raise protocol_error(Reason.WRONG_TYPE, f"field {error.field} must be {wanted}") from None


def _plain(data: Buffer, node: Node) -> Any:
    """A non-secret value. A value that no request can have, such as null, becomes one that no field
    accepts."""
    kind, start, end, children = node
    if kind == STRING:
        return text(data, start, end)
    if kind == NUMBER and end - start <= MAX_DIGITS:
        digits = bytes(data[start:end])
        return int(digits) if digits.isdigit() else _OTHER
    if kind == LITERAL:
        return {b"true": True, b"false": False}.get(bytes(data[start:end]), _OTHER)
    if kind == ARRAY:
        return [_plain(data, item) for item in children]
    if kind == OBJECT:
        return {name: _plain(data, item) for name, item in children.items()}
    return _OTHER
