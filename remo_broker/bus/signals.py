"""The difference between two snapshots, as signals: added and removed objects, then changed
properties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from remo_broker.bus import paths
from remo_broker.bus.interfaces import MANAGER, OBJECT_MANAGER, PROJECT, PROPERTIES, Emits, Interface
from remo_broker.bus.service import all_properties
from remo_broker.bus.wire import Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remo_broker.bus.snapshot import StatusSnapshot


class Emission(NamedTuple):
    """The arguments of `BusConnection.signal`, with the values last."""

    path: str
    interface: str
    member: str
    signature: str
    values: tuple[object, ...]


def differences(
    old: StatusSnapshot | None, new: StatusSnapshot, replaced: frozenset[str] = frozenset()
) -> Iterator[Emission]:
    """The signals that take a client from `old` to `new`.

    `replaced` has projects of both snapshots that were removed in between: on the bus, they are new
    objects.
    """
    before = old.projects if old else {}
    for name in sorted(before.keys() - new.projects.keys() | (before.keys() & replaced)):
        path = paths.project_path(name)
        yield _emission(paths.ROOT, OBJECT_MANAGER, "InterfacesRemoved", path, [PROJECT.name])
        yield _emission(paths.ROOT, MANAGER, "ProjectRemoved", name, path)
    for name in sorted(new.projects.keys() - before.keys() | (new.projects.keys() & replaced)):
        path = paths.project_path(name)
        properties = {PROJECT.name: all_properties(PROJECT, new.projects[name])}
        yield _emission(paths.ROOT, OBJECT_MANAGER, "InterfacesAdded", path, properties)
        yield _emission(paths.ROOT, MANAGER, "ProjectAdded", name, path)
    yield from _changed(paths.ROOT, MANAGER, old, new)
    for name in sorted(before.keys() & new.projects.keys() - replaced):
        if before[name] is not new.projects[name]:
            yield from _changed(paths.project_path(name), PROJECT, before[name], new.projects[name])


def _changed(path: str, interface: Interface, old: object | None, new: object) -> Iterator[Emission]:
    changed = {
        one.name: Variant(one.signature, one.value(new))
        for one in interface.properties
        if one.emits is Emits.TRUE and (old is None or one.value(old) != one.value(new))
    }
    if changed:
        yield _emission(path, PROPERTIES, "PropertiesChanged", interface.name, changed, [])


def _emission(path: str, interface: Interface, member: str, *values: object) -> Emission:
    signal = next(one for one in interface.signals if one.name == member)
    return Emission(path, interface.name, member, signal.signature, values)
