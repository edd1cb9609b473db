"""Decode lines of the status socket to events; an invalid line raises `BadEvent`.

We trust the sender to be the broker, but not to be free of bugs. A number that does not fit its
D-Bus type or a string with a NUL is rejected here, so that no reply on the bus can fail because of
it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from remo_broker.bus.interfaces import MANAGER, PROJECT
from remo_broker.bus.snapshot import StatusSnapshot
from remo_broker.protocol.message import FieldError, from_fields
from remo_broker.protocol.names import is_project_name, printable
from remo_broker.protocol.replies import EVENTS, BrokerEvent, ProjectEvent

if TYPE_CHECKING:
    from remo_broker.bus.interfaces import Interface
    from remo_broker.protocol.message import Message

_LARGEST = {"u": 2**32 - 1, "t": 2**64 - 1}


class BadEvent(Exception):
    """A line of the status socket that is not an event.

    The text is one printable line for the log.
    """


def decode(line: bytes) -> Message:
    """Decode a line of the watch stream, with or without its newline. Raises BadEvent."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise BadEvent("a line that is not JSON") from None
    if not isinstance(fields, dict):
        raise BadEvent("a line that is not an object")
    if fields.get("ok") is False:
        raise BadEvent(f"{_shown(fields.get('code'))}: {_shown(fields.get('message'))}")
    event = EVENTS.get(str(fields.get("event")))
    if event is None:
        raise BadEvent(f"an unknown event, {_shown(fields.get('event'))}")
    try:
        message = from_fields(event, fields)
    except FieldError as error:
        raise BadEvent(f"{event.__name__}: {error}") from None
    if isinstance(message, BrokerEvent):
        _check(MANAGER, StatusSnapshot(message, {}))
    elif isinstance(message, ProjectEvent):
        if not is_project_name(message.name):
            raise BadEvent(f"a project of the name {_shown(message.name)}")
        _check(PROJECT, message)
    return message


def _check(interface: Interface, shown: object) -> None:
    for one in interface.properties:
        value = one.value(shown)
        if isinstance(value, str):
            fits = "\0" not in value and value.isprintable()
        else:
            fits = isinstance(value, int) and 0 <= value <= _LARGEST.get(one.signature, 1)
        if not fits:
            raise BadEvent(f"{one.name} out of range")


def _shown(value: object) -> str:
    return printable(str(value))
