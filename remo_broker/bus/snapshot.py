"""The broker's last reported state.

Snapshots are immutable: each batch of events makes a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from remo_broker.protocol.replies import BrokerEvent, ProjectEvent, RemovedEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from remo_broker.protocol.message import Message


@dataclass(frozen=True)
class StatusSnapshot:
    broker: BrokerEvent
    projects: Mapping[str, ProjectEvent]
    """By name."""

    def stopped(self) -> StatusSnapshot:
        """The same broker when stopped: it holds no secrets, but its projects stay registered."""
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
        return StatusSnapshot(broker, MappingProxyType(projects))


class Draft:
    """Collects events; `finish` returns the resulting snapshot."""

    def __init__(self, base: StatusSnapshot | None = None) -> None:
        self._broker = base.broker if base else None
        self._projects = dict(base.projects) if base else {}
        self.replaced: set[str] = set()
        """Projects of `base` that were removed since, even if registered again."""

    def take(self, events: Iterable[Message]) -> None:
        for event in events:
            if isinstance(event, BrokerEvent):
                self._broker = event
            elif isinstance(event, ProjectEvent):
                self._projects[event.name] = event
            elif isinstance(event, RemovedEvent) and event.name in self._projects:
                del self._projects[event.name]
                self.replaced.add(event.name)

    def finish(self) -> StatusSnapshot:
        """Return the snapshot.

        Raises ValueError if there has been no event about the broker itself.
        """
        if self._broker is None:
            raise ValueError("the broker sent events of projects before its own")
        return StatusSnapshot(self._broker, MappingProxyType(self._projects))
