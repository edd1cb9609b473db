"""Every reply of the protocol, version 2, and every line of its watch streams.

The broker builds them, the client library decodes them with `message.from_fields`, and
`remo_broker.build.schema` generates `schema/remo-broker.v2.json` from them and from `ops`.
"""

from __future__ import annotations

from remo_broker.protocol.message import Message


class Reply(Message):
    ok: bool = True


class Failure(Reply):
    """Every failure, on every socket."""

    ok: bool = False
    code: str
    message: str
    reason: str | None = None
    retry_after_seconds: int | None = None


class Done(Reply):
    """Success with no further data."""


class Value(Reply):
    """A string, or a bundle as the compact JSON of its fields."""

    SECRET_FIELDS = frozenset({"value"})
    value: str
    ttl_seconds: int
    generation: int
    expires_at: str | None = None


class BinaryValue(Reply):
    """Bytes, in the base64 that was pushed."""

    SECRET_FIELDS = frozenset({"value_b64"})
    value_b64: str
    ttl_seconds: int
    generation: int
    expires_at: str | None = None


class Pong(Reply):
    PROJECT_NAMES = frozenset({"project"})
    broker_version: str
    protocol_version: int
    project: str


class ProjectInfo(Reply):
    """What a project may fetch. The manifest's path and SHA-256 are those that were registered;
    `hosts` maps servers to secret names, for credential helpers."""

    PROJECT_NAMES = frozenset({"project"})
    SECRET_NAMES = frozenset({"allowlist"})
    project: str
    allowlist: list[str]
    schema_version: int
    manifest_path: str | None = None
    manifest_sha256: str | None = None
    hosts: dict[str, str] | None = None


class Registered(Reply):
    socket_path: str


class Reloaded(Reply):
    SECRET_NAMES = frozenset({"allowlist"})
    allowlist: list[str]


class Difference(Reply):
    """What a project's manifest says now, compared with what is in force. `widens`: adopting it
    would allow more.

    `changed_bindings` and `changed_hosts` are the secrets and servers whose entries differ;
    `new_bindings` and `new_hosts` are those entries in the manifest, unless they do not fit in a
    message. `sha256` is the manifest's, for `reload`.
    """

    SECRET_NAMES = frozenset({"added", "removed", "changed_bindings", "new_bindings"})
    manifest_path: str
    sha256: str
    widens: bool
    changed: bool
    added: list[str]
    removed: list[str]
    changed_bindings: list[str]
    changed_hosts: list[str]
    ttl_seconds: int
    max_entries: int
    ttl_seconds_now: int
    max_entries_now: int
    new_bindings: dict[str, list[dict[str, object]]] | None = None
    new_hosts: dict[str, str] | None = None


class PushChanges(Message):
    """What a push changed, compared with what the broker held before. A value that is written
    differently counts as changed. The lists have at most `MAX_NAMED` names each."""

    SECRET_NAMES = frozenset({"added_names", "removed_names", "changed_names"})
    added_count: int
    removed_count: int
    changed_count: int
    added_names: list[str]
    removed_names: list[str]
    changed_names: list[str]


class Pushed(Reply):
    """`changes` is there if the request asks for it."""

    loaded_at: str
    secret_count: int
    generation: int
    changes: PushChanges | None = None


class AuditStatus(Message):
    """The state of the audit trail: `queued` records wait in memory, `dropped` records were lost
    since the broker started.

    `serial` is the number of the last record of the start `start_id`; `namespace` is the journal's,
    absent for the default one. `reason` says why the trail is unhealthy: `not_taken`, `not_stored`,
    or `unchecked` before that is known.
    """

    healthy: bool
    sink: str
    queued: int
    dropped: int
    serial: int = 0
    start_id: str = ""
    namespace: str | None = None
    reason: str | None = None


class ProjectFacts(Message):
    """The facts about a project that every view shows. Times are microseconds since 1970, 0 for
    never.

    `fetches_not_found` counts those of the `fetches_allowed` for which the broker did not hold the
    secret. `unserved` is the path of a project socket that clients cannot connect to: it was
    removed, or could not be made.
    """

    PROJECT_NAMES = frozenset({"name"})
    name: str
    socket_path: str
    cache_entries: int
    connections: int
    fetches_allowed: int
    fetches_denied: int
    last_fetch_usec: int
    fetches_not_found: int = 0
    manifest_waits: bool | None = None
    """True if the manifest is known to allow more than what is in force; otherwise the field is
    absent."""
    unserved: str | None = None


class ProjectStatus(ProjectFacts):
    """One entry in the list of projects."""

    FIRST = ("name", "socket_path", "allowlist_size", "cache_entries")
    allowlist_size: int


class ProjectDetail(Reply, ProjectFacts):
    """Everything about one project: its state, and the manifest's content when it was last
    validated."""

    FIRST = ("ok", "name", "socket_path", "project_path", "allowlist", "ttl_seconds", "max_entries", "allowed_uids")
    SECRET_NAMES = frozenset({"allowlist"})
    project_path: str
    allowlist: list[str]
    ttl_seconds: int
    max_entries: int
    allowed_uids: list[int]


class BrokerFacts(Message):
    """The facts about the broker that every view shows. Times are microseconds since 1970, 0 for
    never."""

    broker_version: str
    protocol_version: int
    start_usec: int
    secrets_loaded_usec: int
    secret_count: int
    generation: int
    memory_protection: str
    fetches_allowed: int
    fetches_denied: int
    fetches_not_found: int = 0
    credentials_served: int = 0
    credentials_refused: int = 0


class BrokerStatus(Reply, BrokerFacts):
    """The broker's status. `projects_next` is present if not all projects fitted: ask again with it
    as `after`. `unserved_count` projects have a socket that clients cannot connect to. `unsaved`
    names up to 64 projects that were unregistered, but are still on disk because the state
    directory cannot be written: a restart would serve them again.

    The fields that version 2 has always had come first, in their original order, for clients that
    parse the line with a pattern.
    """

    FIRST = (
        "ok",
        "broker_version",
        "protocol_version",
        "uptime_seconds",
        "secrets_loaded_at",
        "secret_count",
        "projects",
        "start_usec",
        "secrets_loaded_usec",
        "generation",
        "memory_protection",
        "audit",
    )
    uptime_seconds: int
    secrets_loaded_at: str | None
    projects: list[ProjectStatus]
    audit: AuditStatus
    project_count: int
    unserved_count: int = 0
    unsaved: list[str] | None = None
    projects_next: str | None = None


class Explanation(Reply):
    """What the answer to a `get` would be now: `decision`, `outcome` and `reason` are those of its
    audit record."""

    decision: str
    outcome: str
    reason: str
    generation: int


class UnitCredential(Message):
    """One credential that the configuration gives a unit, and what loading it would lead to now."""

    credential: str
    secret: str
    pattern: str
    decision: str
    outcome: str
    reason: str


class UnitCredentials(Reply):
    """The credentials of a unit; `rules` is the number of rules in the whole configuration."""

    unit: str
    credentials: list[UnitCredential]
    rules: int


class Readiness(Reply):
    """Whether the broker holds a snapshot, and which one; clearing the store increments
    `generation` too."""

    ready: bool
    generation: int


class BoundSecrets(Reply):
    """The bindings of each secret that has any in the manifest, as its tables spell them:
    remo-broker-manifest(5)."""

    SECRET_NAMES = frozenset({"bindings"})
    bindings: dict[str, list[dict[str, object]]]


# --- the watch streams on the admin and the project sockets ---------------------------------------


PUSHED = "pushed"
CLEARED = "cleared"
RELOADED = "reloaded"


class StoreState(Reply):
    """The store's current state: sent first without `event`, then with one at each change: `pushed`
    or `cleared`."""

    start_usec: int
    generation: int
    secret_count: int
    secrets_loaded_usec: int
    event: str | None = None


class ProjectState(Reply):
    """What a project may fetch, and from which generation: sent first without `event`, then with
    one at each change: `pushed`, `cleared` or `reloaded`."""

    PROJECT_NAMES = frozenset({"project"})
    SECRET_NAMES = frozenset({"allowlist"})
    project: str
    start_usec: int
    generation: int
    ready: bool
    allowlist: list[str]
    event: str | None = None


class KeepAlive(Message):
    """An empty object: nothing has changed for `KEEP_ALIVE_SECONDS`."""


# --- the watch stream on the status socket --------------------------------------------------------


class BrokerEvent(BrokerFacts):
    """The broker's current state: sent first, then at every change; for counters alone, at most
    once a second."""

    event: str = "broker"
    audit_healthy: bool
    audit_dropped: int


class ProjectEvent(ProjectStatus):
    """A project's current state: the project is new, or has changed."""

    event: str = "project"


class RemovedEvent(Message):
    """A project that is no longer registered."""

    PROJECT_NAMES = frozenset({"name"})
    event: str = "removed"
    name: str


class SyncedEvent(Message):
    """The initial state of the watch has been sent; changes follow."""

    event: str = "synced"


class StoppingEvent(Message):
    """The broker is stopping. `idle` is true for an idle exit: the next connect starts it again."""

    event: str = "stopping"
    idle: bool


EVENTS: dict[str, type[Message]] = {
    cls.event: cls for cls in (BrokerEvent, ProjectEvent, RemovedEvent, SyncedEvent, StoppingEvent)
}
