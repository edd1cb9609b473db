"""Replies to calls, from the last snapshot alone.

No I/O, no clock, no waiting, so a call costs the broker nothing. While the broker's state is
unknown, `snapshot` is None and the reply is the error BrokerUnavailable, not a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remo_broker.bus import paths
from remo_broker.bus.connection import FAILED, LIMITS_EXCEEDED, Error, Return
from remo_broker.bus.interfaces import (
    BROKER_UNAVAILABLE,
    BUS_NAME,
    INTROSPECTABLE,
    MANAGER,
    NO_SUCH_PROJECT,
    OBJECT_MANAGER,
    PEER,
    PROJECT,
    PROPERTIES,
)
from remo_broker.bus.introspection import document
from remo_broker.bus.wire import BadMessage, Variant, encode_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.bus.connection import Answer
    from remo_broker.bus.interfaces import Interface
    from remo_broker.bus.snapshot import StatusSnapshot
    from remo_broker.bus.wire import Incoming

_TREE = f"`busctl tree {BUS_NAME}` shows the objects"
_INTROSPECT = f"`busctl introspect {BUS_NAME} OBJECT` shows what an object has"

# Fixed texts: never repeat any part of a call or an exception to a caller.
UNKNOWN_OBJECT = Error("org.freedesktop.DBus.Error.UnknownObject", f"There is no such object; {_TREE}.")
UNKNOWN_INTERFACE = Error(
    "org.freedesktop.DBus.Error.UnknownInterface", f"The object has no such interface; {_INTROSPECT}."
)
UNKNOWN_METHOD = Error("org.freedesktop.DBus.Error.UnknownMethod", f"The object has no such method; {_INTROSPECT}.")
UNKNOWN_PROPERTY = Error(
    "org.freedesktop.DBus.Error.UnknownProperty", f"The object has no such property; {_INTROSPECT}."
)
READ_ONLY = Error(
    "org.freedesktop.DBus.Error.PropertyReadOnly",
    "Everything here is read-only; use remo-brokerctl to change anything.",
)
INVALID_ARGS = Error("org.freedesktop.DBus.Error.InvalidArgs", f"The method takes other arguments; {_INTROSPECT}.")
NO_PROJECT = Error(NO_SUCH_PROJECT, "No project of this name is registered; ListProjects lists those that are.")
UNAVAILABLE = Error(
    BROKER_UNAVAILABLE,
    "The broker does not report its status; see `systemctl status remo-broker-status.socket remo-broker.service`.",
)
TOO_MANY = Error(
    LIMITS_EXCEEDED,
    "Too many or too large answers for this user; wait a second, and follow PropertiesChanged instead of polling.",
)
NO_MACHINE_ID = Error(FAILED, "This machine has no id; `systemd-machine-id-setup` makes one.")


class _Refused(Exception):
    def __init__(self, error: Error) -> None:
        super().__init__(error.name)
        self.error = error


class Service:
    """The objects. Set `snapshot` to each new one."""

    def __init__(self, machine_id: str) -> None:
        self._machine_id = machine_id
        self._snapshot: StatusSnapshot | None = None
        self._prepared: dict[str, Return] = {}
        self._methods: dict[tuple[str, str], Callable[[Incoming], Answer]] = {
            (PEER.name, "Ping"): lambda _call: Return(),
            (PEER.name, "GetMachineId"): self._get_machine_id,
            (INTROSPECTABLE.name, "Introspect"): self._introspect,
            (PROPERTIES.name, "Get"): self._get,
            (PROPERTIES.name, "GetAll"): self._get_all,
            (PROPERTIES.name, "Set"): self._set,
            (OBJECT_MANAGER.name, "GetManagedObjects"): self._get_managed_objects,
            (MANAGER.name, "ListProjects"): self._list_projects,
            (MANAGER.name, "GetProject"): self._get_project,
        }

    @property
    def snapshot(self) -> StatusSnapshot | None:
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: StatusSnapshot | None) -> None:
        self._snapshot = snapshot
        self._prepared.clear()

    def answer(self, call: Incoming) -> Answer:
        """Reply to any call, valid or not."""
        try:
            interface = self._interface(call)
            method = interface.method(call.member)
            if method is None:
                return UNKNOWN_METHOD
            if method.signature != call.signature:
                return INVALID_ARGS
            return self._methods[interface.name, method.name](call)
        except _Refused as refused:
            return refused.error
        except BadMessage:  # the body does not match its signature
            return INVALID_ARGS

    # --- objects ----------------------------------------------------------------------------------

    def _interface(self, call: Incoming) -> Interface:
        """The interface of the call; if the call names none, the first with the method."""
        if call.interface == PEER.name or (not call.interface and PEER.method(call.member)):
            return PEER  # it belongs to the connection, not to an object
        interfaces = (*self._own_interfaces(call.path), *_standard_interfaces(call.path))
        for interface in interfaces:
            if interface.name == call.interface or (not call.interface and interface.method(call.member)):
                return interface
        raise _Refused(UNKNOWN_INTERFACE if call.interface else UNKNOWN_METHOD)

    def _own_interfaces(self, path: str) -> tuple[Interface, ...]:
        if path == paths.ROOT:
            return (MANAGER,)
        name = paths.project_name(path)
        if name is not None and name in self._known().projects:
            return (PROJECT,)
        if paths.children(path) is None:
            raise _Refused(UNKNOWN_OBJECT)
        return ()

    def _known(self) -> StatusSnapshot:
        if self._snapshot is None:
            raise _Refused(UNAVAILABLE)
        return self._snapshot

    def _shown(self, path: str) -> object:
        """The source of the properties of the object at `path`, which must exist."""
        name = paths.project_name(path)
        snapshot = self._known()
        return snapshot if name is None else snapshot.projects[name]

    # --- the standard interfaces ------------------------------------------------------------------

    def _get_machine_id(self, _call: Incoming) -> Answer:
        if not self._machine_id:
            return NO_MACHINE_ID
        return Return("s", encode_body("s", [self._machine_id]))

    def _introspect(self, call: Incoming) -> Answer:
        def children() -> list[str]:
            if call.path == paths.PROJECTS:
                return [paths.escape_label(name) for name in sorted(self._known().projects)]
            return list(paths.children(call.path) or ())

        interfaces = (*self._own_interfaces(call.path), *_standard_interfaces(call.path))
        # There may be many projects; one document serves them all.
        what = call.path if paths.project_name(call.path) is None else "a project"
        return self._once(f"Introspect {what}", "s", lambda: document(interfaces, children()))

    def _get(self, call: Incoming) -> Answer:
        interface_name, property_name = call.body()
        for interface in self._with_properties(call.path, interface_name):
            if found := interface.property(property_name):
                value = Variant(found.signature, found.value(self._shown(call.path)))
                return Return("v", encode_body("v", [value]))
        return UNKNOWN_PROPERTY

    def _get_all(self, call: Incoming) -> Answer:
        (interface_name,) = call.body()
        values: dict[str, Variant] = {}
        for interface in self._with_properties(call.path, interface_name):
            if interface.properties:
                values |= all_properties(interface, self._shown(call.path))
        return Return("a{sv}", encode_body("a{sv}", [values]))

    def _set(self, call: Incoming) -> Answer:
        interface_name, property_name, _value = call.body()
        found = any(one.property(property_name) for one in self._with_properties(call.path, interface_name))
        return READ_ONLY if found else UNKNOWN_PROPERTY

    def _with_properties(self, path: str, interface_name: str) -> list[Interface]:
        """The object's interfaces that a call on Properties selects; an empty name selects all."""
        interfaces = (*self._own_interfaces(path), *_standard_interfaces(path))
        found = [interface for interface in interfaces if interface_name in {"", interface.name}]
        if not found:
            raise _Refused(UNKNOWN_INTERFACE)
        return found

    def _get_managed_objects(self, _call: Incoming) -> Answer:
        def prepare() -> object:
            return {
                paths.project_path(name): {PROJECT.name: all_properties(PROJECT, project)}
                for name, project in sorted(self._known().projects.items())
            }

        return self._once("GetManagedObjects", "a{oa{sa{sv}}}", prepare)

    # --- Manager ----------------------------------------------------------------------------------

    def _list_projects(self, _call: Incoming) -> Answer:
        def prepare() -> object:
            return [[name, paths.project_path(name)] for name in sorted(self._known().projects)]

        return self._once("ListProjects", "a(so)", prepare)

    def _get_project(self, call: Incoming) -> Answer:
        (name,) = call.body()
        if name not in self._known().projects:
            return NO_PROJECT
        return Return("o", encode_body("o", [paths.project_path(name)]))

    def _once(self, what: str, signature: str, prepare: Callable[[], object]) -> Return:
        """Build a reply whose size grows with the projects once per snapshot: marshalling 1,000
        projects takes 50 ms.
        """
        if what not in self._prepared:
            self._prepared[what] = Return(signature, encode_body(signature, [prepare()]))
        return self._prepared[what]


def all_properties(interface: Interface, shown: object) -> dict[str, Variant]:
    """Every property of `interface`, read from `shown`, for `a{sv}`."""
    return {one.name: Variant(one.signature, one.value(shown)) for one in interface.properties}


def _standard_interfaces(path: str) -> tuple[Interface, ...]:
    standard = (PEER, INTROSPECTABLE, PROPERTIES)
    return (*standard, OBJECT_MANAGER) if path == paths.ROOT else standard
