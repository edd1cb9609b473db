"""From a line to a request: the one place where JSON becomes a typed message in the broker."""

from __future__ import annotations

from remo_broker.broker.refusals import protocol_error
from remo_broker.broker.secrets.json_spans import ARRAY, NUMBER, OBJECT, STRING, text
from remo_broker.protocol.ops import Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from remo_broker.broker.secrets.json_spans import Buffer, Node
    from remo_broker.protocol.ops import Request

# Whole numbers in requests are uids, which have 32 bits.
MAX_DIGITS = 10


def decode(data: Buffer, node: Node, requests: Mapping[str, type[Request]]) -> Request:
    """The request that `node` of `data` is, by the table of its socket. Fields that it does not know are ignored.

    Fields that hold secrets are checked to be objects and left out. Raises `Refused` (`protocol_error`).
    """
    kind, _, _, members = node
    if kind != OBJECT:
        raise protocol_error(Reason.NOT_AN_OBJECT, "a request is a JSON object")
    op = members.get("op")
    if op is None:
        raise protocol_error(Reason.MISSING_FIELD, f"field op is missing; it is one of {', '.join(requests)}")
    if op[0] != STRING:
        raise protocol_error(Reason.WRONG_TYPE, "field op must be a string")
    cls = requests.get(text(data, op[1], op[2]))
    if cls is None:
        raise protocol_error(Reason.UNKNOWN_OP, f"unknown op; this socket knows {', '.join(requests)}")
    values = {}
    for name, annotation in cls.FIELDS.items():
        field = members.get(name)
        if field is not None and name in cls.SECRET_FIELDS:
            if field[0] != OBJECT:
                raise protocol_error(Reason.WRONG_TYPE, f"field {name} must be an object")
        elif field is not None:
            values[name] = _value(data, name, annotation, field)
        elif not cls.optional(name):
            raise protocol_error(Reason.MISSING_FIELD, f"field {name} is missing; {cls.OP} needs it")
    return cls(**values)


def _value(data: Buffer, name: str, annotation: str, node: Node) -> Any:
    kind, start, end, children = node
    if annotation in ("str", "str | None"):
        if kind != STRING:
            raise protocol_error(Reason.WRONG_TYPE, f"field {name} must be a string")
        return text(data, start, end)
    if annotation == "list[int]":
        if kind != ARRAY or not all(_is_whole(data, item) for item in children):
            raise protocol_error(Reason.WRONG_TYPE, f"field {name} must be a list of whole numbers, not negative")
        return [int(bytes(data[begin:after])) for _, begin, after, _ in children]
    if annotation == "int | None":
        if not _is_whole(data, node):
            raise protocol_error(Reason.WRONG_TYPE, f"field {name} must be a whole number, not negative")
        return int(bytes(data[start:end]))
    raise AssertionError(f"no request has a field of type {annotation}")


def _is_whole(data: Buffer, node: Node) -> bool:
    kind, start, end, _ = node
    return kind == NUMBER and end - start <= MAX_DIGITS and bytes(data[start:end]).isdigit()
