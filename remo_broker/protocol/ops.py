"""The vocabulary of the protocol, version 2: defines every request, reply, code and reason word
once.

The broker decodes requests with these classes, the client library decodes replies with them, and
`remo_broker.build.schema` generates `schema/remo-broker.v2.json` from them. `message` describes
what these classes can do.
"""

from __future__ import annotations

try:
    from enum import StrEnum
except ImportError:  # before Python 3.11, in a container
    from remo_broker.protocol.str_enum import StrEnum  # type: ignore[assignment]

from remo_broker.protocol.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# One message, newline included. A shell client reads this much at once.
MAX_MESSAGE = 64 * 1024
# Only a push-creds request may be longer: it carries every secret of the host.
MAX_PUSH = 1024 * 1024
# Nesting of objects and arrays. The deepest valid message has three levels; the rest is room to
# grow.
MAX_DEPTH = 16
# The limits on leases, for manifests and for the broker's own configuration alike.
MAX_TTL_SECONDS = 86_400
MAX_LEASES = 1024

# Linux's longest path; it also keeps replies that name a path short.
MAX_PATH = 4096
# uid -1 is "no uid" to the kernel.
MAX_UID = 2**32 - 2
# The most uids in a registration: a project has a handful of users, and each connect searches the
# list.
MAX_UIDS = 64

# The kinds of sockets, as a request's `SOCKETS` names them.
PROJECT = "project"
ADMIN = "admin"
STATUS = "status"


# A watch that has sent nothing for this long sends an empty object: both sides learn that the other
# is still there.
SIGN_OF_LIFE_SECONDS = 30.0


class Code(StrEnum):
    """What went wrong, for programs. The two `backend_` codes are kept for version 1 parsers and
    never sent."""

    DENIED = "denied"
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    PROTOCOL_ERROR = "protocol_error"
    INTERNAL_ERROR = "internal_error"
    PEER_UNEXPECTED = "peer_unexpected"
    BACKEND_ERROR = "backend_error"
    BACKEND_UNREACHABLE = "backend_unreachable"
    MANIFEST_INVALID = "manifest_invalid"
    MANIFEST_NOT_FOUND = "manifest_not_found"
    MANIFEST_UNREADABLE = "manifest_unreadable"
    PROJECT_UNKNOWN = "project_unknown"
    PROJECT_EXISTS = "project_exists"
    INVALID_PAYLOAD = "invalid_payload"
    PAYLOAD_TOO_LARGE = "payload_too_large"


PROJECT_CODES = (
    Code.DENIED,
    Code.NOT_FOUND,
    Code.RATE_LIMITED,
    Code.PROTOCOL_ERROR,
    Code.INTERNAL_ERROR,
    Code.PEER_UNEXPECTED,
    Code.BACKEND_ERROR,
    Code.BACKEND_UNREACHABLE,
)
ADMIN_CODES = (
    Code.MANIFEST_INVALID,
    Code.MANIFEST_NOT_FOUND,
    Code.MANIFEST_UNREADABLE,
    Code.PROJECT_UNKNOWN,
    Code.PROJECT_EXISTS,
    Code.INVALID_PAYLOAD,
    Code.PAYLOAD_TOO_LARGE,
    Code.PROTOCOL_ERROR,
    Code.INTERNAL_ERROR,
)
# By kind of socket, the codes that any op may fail with, also before the op is known.
ANY_OP_CODES: dict[str, tuple[Code, ...]] = {
    PROJECT: (
        Code.DENIED,
        Code.RATE_LIMITED,
        Code.PROTOCOL_ERROR,
        Code.INTERNAL_ERROR,
        Code.PEER_UNEXPECTED,
    ),
    ADMIN: (Code.PAYLOAD_TOO_LARGE, Code.PROTOCOL_ERROR, Code.INTERNAL_ERROR),
    STATUS: (Code.RATE_LIMITED, Code.PROTOCOL_ERROR, Code.INTERNAL_ERROR),
}


class Reason(StrEnum):
    """A fixed word that tells programs which of a code's several causes it was."""

    NOT_IN_MANIFEST = "not_in_manifest"
    INVALID_NAME = "invalid_name"
    NOT_REGISTERED = "not_registered"
    NOT_IN_SNAPSHOT = "not_in_snapshot"
    NO_SNAPSHOT = "no_snapshot"
    EXPIRED = "expired"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    UID_NOT_ALLOWED = "uid_not_allowed"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    DUPLICATE_KEY = "duplicate_key"
    UNKNOWN_OP = "unknown_op"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_VALUE = "bad_value"
    TOO_LONG = "too_long"
    TOO_SLOW = "too_slow"
    NAME_TAKEN = "name_taken"
    OUT_OF_MEMORY = "out_of_memory"
    STATE_UNWRITABLE = "state_unwritable"
    MANIFEST_CHANGED = "manifest_changed"
    NOT_STARTED = "not_started"
    SOCKET_UNAVAILABLE = "socket_unavailable"
    NOT_IN_CONFIGURATION = "not_in_configuration"
    NO_SUCH_FIELD = "no_such_field"
    UNIT_MISMATCH = "unit_mismatch"


class Protection(StrEnum):
    """How secret memory is protected, as `status` and the bus show it."""

    MEMFD_SECRET = "memfd_secret"
    LOCKED = "mlock"
    NONE = "none"


# --- replies --------------------------------------------------------------------------------------


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
    broker_version: str
    protocol_version: int
    project: str


class ProjectInfo(Reply):
    """What a project may fetch. The manifest's path and SHA-256 are those that were registered;
    `hosts` maps servers to secret names, for credential helpers."""

    project: str
    allowlist: list[str]
    schema_version: int
    manifest_path: str | None = None
    manifest_sha256: str | None = None
    hosts: dict[str, str] | None = None


class Registered(Reply):
    socket_path: str


class Reloaded(Reply):
    allowlist: list[str]


class Difference(Reply):
    """What a project's manifest says now, compared with what is in force. `widens`: adopting it
    would allow more.

    `changed_bindings` and `changed_hosts` are the secrets and servers whose entries differ.
    `sha256` is the manifest's, for `reload`.
    """

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


class Pushed(Reply):
    loaded_at: str
    secret_count: int
    generation: int


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
    as `after`. `unserved_count` projects have a socket that clients cannot connect to.

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

    project: str
    start_usec: int
    generation: int
    ready: bool
    allowlist: list[str]
    event: str | None = None


class SignOfLife(Message):
    """An empty object: nothing has changed for `SIGN_OF_LIFE_SECONDS`."""


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


# --- requests -------------------------------------------------------------------------------------


class Request(Message):
    """An op. The class declares everything about it except its handler; that is one entry in the
    handler table of each of its sockets (`remo_broker.broker.handlers`)."""

    OP: ClassVar[str] = ""
    SOCKETS: ClassVar[tuple[str, ...]] = ()
    """The kinds of sockets that answer it."""
    REPLIES: ClassVar[tuple[type[Message], ...]] = (Done,)
    """The types of its success replies: one line, or many if it is a stream."""
    CODES: ClassVar[tuple[Code, ...]] = ()
    """The codes that it may fail with, besides those common to all ops of the socket
    (`ANY_OP_CODES`)."""
    REPEATABLE: ClassVar[bool] = False
    """Whether repeating it changes nothing, so that a client may ask again when a connection turns
    out to be dead."""


class Get(Request):
    """Fetch one secret. The reply for a binary secret is `BinaryValue`."""

    OP = "get"
    SOCKETS = (PROJECT,)
    REPLIES = (Value, BinaryValue)
    CODES = (Code.NOT_FOUND,)
    REPEATABLE = True
    name: str


class Ping(Request):
    OP = "ping"
    SOCKETS = (PROJECT,)
    REPLIES = (Pong,)
    REPEATABLE = True


class Info(Request):
    OP = "info"
    SOCKETS = (PROJECT,)
    REPLIES = (ProjectInfo,)
    REPEATABLE = True


class Ready(Request):
    """Whether secrets have been pushed. `remo-secret wait` asks this, because a `get` would be
    audited as a fetch."""

    OP = "ready"
    SOCKETS = (PROJECT,)
    REPLIES = (Readiness,)
    REPEATABLE = True


class Peek(Request):
    """What the answer to a `get` would be. Fetches and audits nothing. Counts for the rate
    limit."""

    OP = "peek"
    SOCKETS = (PROJECT,)
    REPLIES = (Explanation,)
    REPEATABLE = True
    name: str


class Bindings(Request):
    """Where each secret belongs according to the registered manifest: for `remo-secret exec` and
    `render`."""

    OP = "bindings"
    SOCKETS = (PROJECT,)
    REPLIES = (BoundSecrets,)
    REPEATABLE = True


class Register(Request):
    """Register a project. With `replace`, a registered project of that name gets a new directory,
    manifest and users, and keeps its sockets. With `any_name`, the manifest and the directory may
    have other names."""

    OP = "register"
    SOCKETS = (ADMIN,)
    REPLIES = (Registered,)
    CODES = (Code.PROJECT_EXISTS, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_INVALID, Code.MANIFEST_UNREADABLE)
    name: str
    project_path: str
    allowed_uids: list[int] = []  # noqa: RUF012 - never changed; a tuple would not match the JSON
    replace: bool = False
    any_name: bool = False


class Unregister(Request):
    OP = "unregister"
    SOCKETS = (ADMIN,)
    CODES = (Code.PROJECT_UNKNOWN,)
    name: str


class Reload(Request):
    """Adopt what the manifest says now. With `sha256`, only if the manifest still has that
    digest."""

    OP = "reload"
    SOCKETS = (ADMIN,)
    REPLIES = (Reloaded,)
    CODES = (Code.PROJECT_UNKNOWN, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_INVALID, Code.MANIFEST_UNREADABLE)
    name: str
    sha256: str | None = None


class Preview(Request):
    """Compare a project's manifest with what is in force. With `adopt_narrower`, adopt what removes
    something; anything that would allow more waits for `reload`."""

    OP = "preview"
    SOCKETS = (ADMIN,)
    REPLIES = (Difference,)
    CODES = (Code.PROJECT_UNKNOWN, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_INVALID, Code.MANIFEST_UNREADABLE)
    name: str
    adopt_narrower: bool = False


class PushCreds(Request):
    """Replace every secret. The broker reads the three objects in place and never builds them.

    `expires` gives secrets a time (RFC 3339) from which they are no longer served.
    """

    OP = "push-creds"
    SOCKETS = (ADMIN,)
    REPLIES = (Pushed,)
    CODES = (Code.INVALID_PAYLOAD, Code.PAYLOAD_TOO_LARGE)
    SECRET_FIELDS = frozenset({"secrets", "secrets_b64", "expires"})  # a malformed push may hold values anywhere
    secrets: dict[str, str | dict[str, str]] = {}  # noqa: RUF012 - never changed
    secrets_b64: dict[str, str] = {}  # noqa: RUF012 - never changed
    expires: dict[str, str] = {}  # noqa: RUF012 - never changed


class ClearCreds(Request):
    OP = "clear-creds"
    SOCKETS = (ADMIN,)


class Status(Request):
    """`after` is the `projects_next` of an earlier reply: the list continues after that project."""

    OP = "status"
    SOCKETS = (ADMIN, STATUS)
    REPLIES = (BrokerStatus,)
    REPEATABLE = True
    after: str | None = None


class Show(Request):
    """One project in full. Unknown name: `project_unknown`."""

    OP = "show"
    SOCKETS = (ADMIN,)
    REPLIES = (ProjectDetail,)
    CODES = (Code.PROJECT_UNKNOWN,)
    REPEATABLE = True
    name: str


class Explain(Request):
    """What a `get` of `secret` by project `name` would lead to. Fetches and audits nothing.

    `uid` is that of the connecting user; without it, that of a user whom the project admits.
    """

    OP = "explain"
    SOCKETS = (ADMIN,)
    REPLIES = (Explanation,)
    CODES = (Code.PROJECT_UNKNOWN,)
    REPEATABLE = True
    name: str
    secret: str
    uid: int | None = None


class WatchStore(Request):
    """Follow the store on the admin socket."""

    OP = "watch"
    SOCKETS = (ADMIN,)
    REPLIES = (StoreState, SignOfLife)


class WatchProject(Request):
    """Follow a project on its socket. This is not a fetch, so it is not audited."""

    OP = "watch"
    SOCKETS = (PROJECT,)
    REPLIES = (ProjectState, SignOfLife)


class ExplainUnit(Request):
    """Which credentials the configuration gives `unit`. Fetches and audits nothing."""

    OP = "explain-unit"
    SOCKETS = (ADMIN,)
    REPLIES = (UnitCredentials,)
    REPEATABLE = True
    unit: str


class Watch(Request):
    """Follow the broker on the status socket: see remo-broker-protocol(7)."""

    OP = "watch"
    SOCKETS = (STATUS,)
    REPLIES = tuple(EVENTS.values())


def _requests_of(socket: str) -> dict[str, type[Request]]:
    return {cls.OP: cls for cls in Request.__subclasses__() if socket in cls.SOCKETS}


# Op to request class, for each kind of socket.
PROJECT_REQUESTS = _requests_of(PROJECT)
ADMIN_REQUESTS = _requests_of(ADMIN)
STATUS_REQUESTS = _requests_of(STATUS)
