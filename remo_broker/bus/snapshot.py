"""The last that the broker told of itself. A snapshot is never changed: every batch of events makes another.

The events come from a process that this one trusts to be the broker, not to be free of bugs. What could not be sent on
the bus (a number that does not fit its type, a text with a NUL) is refused here, so that no answer can fail for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from remo_broker.bus.interfaces import MANAGER, PROJECT
from remo_broker.protocol.message import Message
from remo_broker.protocol.names import is_project_name, printable
from remo_broker.protocol.ops import EVENTS, BrokerEvent, ProjectEvent, RemovedEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from remo_broker.bus.interfaces import Interface

_LARGEST = {"u": 2**32 - 1, "t": 2**64 - 1}
_KINDS = {"str": str, "int": int, "bool": bool}


class BadEvent(Exception):
    """A line of the status socket that is no event. The text is for the log: one line, printable."""


@dataclass(frozen=True)
class Snapshot:
    broker: BrokerEvent
    projects: Mapping[str, ProjectEvent]
    """By name."""

    def stopped(self) -> Snapshot:
        """What is true of the same broker once it does not run: it holds nothing, the registrations stand."""
        broker = BrokerEvent(
            broker_version=self.broker.broker_version,
            protocol_version=self.broker.protocol_version,
            start_usec=0,
            secrets_loaded_usec=0,
            secret_count=0,
            generation=0,
            memory_protection=self.broker.memory_protection,
            audit_healthy=True,
            audit_dropped=0,
            fetches_allowed=0,
            fetches_denied=0,
        )
        projects = {
            name: ProjectEvent(
                name=name,
                socket_path=project.socket_path,
                allowlist_size=project.allowlist_size,
                cache_entries=0,
                connections=0,
                fetches_allowed=0,
                fetches_denied=0,
                last_fetch_usec=0,
            )
            for name, project in self.projects.items()
        }
        return Snapshot(broker, MappingProxyType(projects))


class Draft:
    """A snapshot in the making: events go in, `finish` gives the snapshot."""

    def __init__(self, base: Snapshot | None = None) -> None:
        self._broker = base.broker if base else None
        self._projects = dict(base.projects) if base else {}
        self.replaced: set[str] = set()
        """Projects of `base` that were removed on the way, whether or not they came back."""

    def take(self, events: Iterable[Message]) -> None:
        for event in events:
            if isinstance(event, BrokerEvent):
                self._broker = event
            elif isinstance(event, ProjectEvent):
                self._projects[event.name] = event
            elif isinstance(event, RemovedEvent) and event.name in self._projects:
                del self._projects[event.name]
                self.replaced.add(event.name)

    def finish(self) -> Snapshot:
        """Raises BadEvent if the broker has not told of itself yet."""
        if self._broker is None:
            raise BadEvent("the broker told of its projects before itself")
        return Snapshot(self._broker, MappingProxyType(self._projects))


def decode(line: bytes) -> Message:
    """One line of the watch stream, its newline included or not. Raises BadEvent."""
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
    values = {}
    for name, kind in event.FIELDS.items():
        value = fields.get(name)
        if type(value) is not _KINDS[kind]:
            raise BadEvent(f"the event {event.__name__} without a proper {name}")
        values[name] = value
    message = event(**values)
    if isinstance(message, BrokerEvent):
        _check(MANAGER, Snapshot(message, {}))
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
