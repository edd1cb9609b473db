"""The interfaces on the bus, as tables.

Replies, introspection, signals and the schema derive from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.bus.snapshot import StatusSnapshot
    from remo_broker.protocol.replies import ProjectEvent

BUS_NAME = "io.get2know.RemoBroker1"

NO_SUCH_PROJECT = f"{BUS_NAME}.Error.NoSuchProject"
BROKER_UNAVAILABLE = f"{BUS_NAME}.Error.BrokerUnavailable"


class Emits(StrEnum):
    """Whether `PropertiesChanged` announces a property's changes.

    The annotation is omitted for `true`.
    """

    TRUE = "true"
    FALSE = "false"
    CONST = "const"


@dataclass(frozen=True)
class Argument:
    name: str
    signature: str


@dataclass(frozen=True)
class Method:
    name: str
    takes: tuple[Argument, ...] = ()
    gives: tuple[Argument, ...] = ()
    text: str = ""

    @property
    def signature(self) -> str:
        """The signature of a call's arguments."""
        return "".join(argument.signature for argument in self.takes)

    @property
    def answer_signature(self) -> str:
        return "".join(argument.signature for argument in self.gives)


@dataclass(frozen=True)
class Signal:
    name: str
    gives: tuple[Argument, ...]
    text: str = ""

    @property
    def signature(self) -> str:
        return "".join(argument.signature for argument in self.gives)


@dataclass(frozen=True)
class Property:
    """`value` reads it from what the object shows: the snapshot, or one of its projects."""

    name: str
    signature: str
    emits: Emits
    value: Callable[[Any], object]
    text: str = ""


@dataclass(frozen=True)
class Interface:
    name: str
    methods: tuple[Method, ...] = ()
    signals: tuple[Signal, ...] = ()
    properties: tuple[Property, ...] = ()

    def method(self, name: str) -> Method | None:
        return next((method for method in self.methods if method.name == name), None)

    def property(self, name: str) -> Property | None:
        return next((one for one in self.properties if one.name == name), None)


def _manager(name: str, signature: str, emits: Emits, value: Callable[[StatusSnapshot], object], text: str) -> Property:
    return Property(name, signature, emits, value, text)


def _project(name: str, signature: str, emits: Emits, value: Callable[[ProjectEvent], object], text: str) -> Property:
    return Property(name, signature, emits, value, text)


_NAME = Argument("name", "s")
_PATH = Argument("path", "o")

MANAGER = Interface(
    f"{BUS_NAME}.Manager",
    methods=(
        Method(
            "ListProjects",
            gives=(Argument("projects", "a(so)"),),
            text="The registered projects by name, with their objects.",
        ),
        Method("GetProject", (_NAME,), (_PATH,), "The object of one project, or the error NoSuchProject."),
    ),
    signals=(
        Signal("ProjectAdded", (_NAME, _PATH), "A project was registered."),
        Signal("ProjectRemoved", (_NAME, _PATH), "A project is no longer registered."),
    ),
    properties=(
        _manager("Version", "s", Emits.CONST, lambda s: s.broker.broker_version, "The broker's version."),
        _manager(
            "ProtocolVersion",
            "u",
            Emits.CONST,
            lambda s: s.broker.protocol_version,
            "The version of its sockets' protocol.",
        ),
        _manager(
            "StartTimestamp",
            "t",
            Emits.TRUE,
            lambda s: s.broker.start_usec,
            "When the broker started, microseconds since 1970; 0 while it is not running.",
        ),
        _manager("SecretCount", "u", Emits.TRUE, lambda s: s.broker.secret_count, "How many secrets it holds."),
        _manager(
            "SecretsLoadedTimestamp",
            "t",
            Emits.TRUE,
            lambda s: s.broker.secrets_loaded_usec,
            "When the secrets were pushed, microseconds since 1970; 0 if there are none.",
        ),
        _manager(
            "Generation",
            "t",
            Emits.TRUE,
            lambda s: s.broker.generation,
            "The number of the snapshot that is served; 0 while the broker is not running.",
        ),
        _manager("ProjectCount", "u", Emits.TRUE, lambda s: len(s.projects), "How many projects are registered."),
        _manager(
            "MemoryProtection",
            "s",
            Emits.TRUE,
            lambda s: s.broker.memory_protection,
            "How secret memory is protected: memfd_secret, mlock or none; the last known value while the broker is not running.",
        ),
        _manager(
            "AuditHealthy",
            "b",
            Emits.TRUE,
            lambda s: s.broker.audit_healthy,
            "Whether the journal accepts and stores audit records, as far as is known.",
        ),
        _manager(
            "AuditDropped",
            "t",
            Emits.FALSE,
            lambda s: s.broker.audit_dropped,
            "Audit records lost since the broker started.",
        ),
        _manager(
            "FetchesAllowed",
            "t",
            Emits.FALSE,
            lambda s: s.broker.fetches_allowed,
            "Fetches allowed since the broker started.",
        ),
        _manager(
            "FetchesDenied",
            "t",
            Emits.FALSE,
            lambda s: s.broker.fetches_denied,
            "Fetches denied since the broker started.",
        ),
        _manager(
            "CredentialsServed",
            "t",
            Emits.FALSE,
            lambda s: s.broker.credentials_served,
            "Credentials that systemd units have loaded since the broker started.",
        ),
        _manager(
            "CredentialsRefused",
            "t",
            Emits.FALSE,
            lambda s: s.broker.credentials_refused,
            "Credentials refused since the broker started; each refusal kept a unit from starting.",
        ),
    ),
)

PROJECT = Interface(
    f"{BUS_NAME}.Project",
    properties=(
        _project("Name", "s", Emits.CONST, lambda p: p.name, "The project's name."),
        _project("SocketPath", "s", Emits.TRUE, lambda p: p.socket_path, "The socket that its tools use."),
        _project("AllowlistSize", "u", Emits.TRUE, lambda p: p.allowlist_size, "How many names it may fetch."),
        _project("CacheEntries", "u", Emits.FALSE, lambda p: p.cache_entries, "Its leases that have not ended."),
        _project("Connections", "u", Emits.FALSE, lambda p: p.connections, "Open connections on its socket."),
        _project(
            "FetchesAllowed",
            "t",
            Emits.FALSE,
            lambda p: p.fetches_allowed,
            "Fetches allowed since the broker started.",
        ),
        _project(
            "FetchesDenied",
            "t",
            Emits.FALSE,
            lambda p: p.fetches_denied,
            "Fetches denied since the broker started.",
        ),
        _project(
            "LastFetchTimestamp",
            "t",
            Emits.FALSE,
            lambda p: p.last_fetch_usec,
            "When it last fetched, microseconds since 1970; 0 if not since the broker started.",
        ),
    ),
)

# --- standard interfaces, from the D-Bus specification --------------------------------------------

PEER = Interface(
    "org.freedesktop.DBus.Peer",
    methods=(Method("Ping"), Method("GetMachineId", gives=(Argument("machine_uuid", "s"),))),
)

INTROSPECTABLE = Interface(
    "org.freedesktop.DBus.Introspectable",
    methods=(Method("Introspect", gives=(Argument("xml_data", "s"),)),),
)

_INTERFACE_NAME = Argument("interface_name", "s")
_PROPERTY_NAME = Argument("property_name", "s")

PROPERTIES = Interface(
    "org.freedesktop.DBus.Properties",
    methods=(
        Method("Get", (_INTERFACE_NAME, _PROPERTY_NAME), (Argument("value", "v"),)),
        Method("GetAll", (_INTERFACE_NAME,), (Argument("props", "a{sv}"),)),
        Method("Set", (_INTERFACE_NAME, _PROPERTY_NAME, Argument("value", "v"))),
    ),
    signals=(
        Signal(
            "PropertiesChanged",
            (_INTERFACE_NAME, Argument("changed_properties", "a{sv}"), Argument("invalidated_properties", "as")),
        ),
    ),
)

_OBJECT_PATH = Argument("object_path", "o")

OBJECT_MANAGER = Interface(
    "org.freedesktop.DBus.ObjectManager",
    methods=(Method("GetManagedObjects", gives=(Argument("objpath_interfaces_and_properties", "a{oa{sa{sv}}}"),)),),
    signals=(
        Signal("InterfacesAdded", (_OBJECT_PATH, Argument("interfaces_and_properties", "a{sa{sv}}"))),
        Signal("InterfacesRemoved", (_OBJECT_PATH, Argument("interfaces", "as"))),
    ),
)
