"""The vocabulary of the protocol, version 2: every request, reply, code and reason word, once.

The broker decodes requests by these classes, the client library decodes replies by them, and `remo_broker.build.schema`
makes `schema/remo-broker.v2.json` of them. What a class of these can do is in `message`.
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

# One message, its newline included. The limit is what one read of a shell client takes.
MAX_MESSAGE = 64 * 1024
# A push-creds request alone may be longer: it carries every secret of the host.
MAX_PUSH = 1024 * 1024
# Objects and arrays inside one another; the deepest legal message has three levels, the rest is room to grow.
MAX_DEPTH = 16
# The bounds of a lease, for manifests and for the broker's own configuration alike.
MAX_TTL_SECONDS = 86_400
MAX_LEASES = 1024

# Linux's longest path; it also keeps the reply that names a path short.
MAX_PATH = 4096
# uid -1 is "no uid" to the kernel.
MAX_UID = 2**32 - 2
# As many uids as a registration may list: a project has a handful of users, and the list is searched at each connect.
MAX_UIDS = 64

# The kinds of sockets, as a request's `SOCKETS` names them.
PROJECT = "project"
ADMIN = "admin"
STATUS = "status"


# When a watch has had nothing to send for so long, it sends an empty object: both sides learn that the other is there.
SIGN_OF_LIFE_SECONDS = 30.0


class Code(StrEnum):
    """What went wrong, for programs. The two `backend_` codes are kept for version 1 parsers and never sent."""

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
# What any op of a kind of socket may fail with: before the op is known, or whatever the op is.
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
    """The fixed word beside a code that tells a program which of several causes it was."""

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
    """How secret memory is kept, as `status` and the bus show it."""

    MEMFD_SECRET = "memfd_secret"
    LOCKED = "mlock"
    NONE = "none"


# --- replies ---------------------------------------------------------------------------------------------------------


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
    """Success with nothing more to say."""


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
    """What a project may fetch. The manifest's path and SHA-256 are those that were registered; `hosts` maps servers
    to names of secrets, for credential helpers.
    """

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
    """What a project's manifest says now, against what the broker goes by. `widens`: adopting it would allow more.

    `changed_bindings` and `changed_hosts` are the secrets and servers whose entries differ. `sha256` is the manifest's, for `reload`.
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
    """How the audit is: `queued` records wait in memory, `dropped` left it unread since the broker started.

    `serial` is the number of the last record of the start `start_id`; `namespace` is the journal's, absent for the default one.
    `reason` is why it is not healthy: `not_taken`, `not_stored`, or `unchecked` before that is known.
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
    """What is shown of a project everywhere. Times are microseconds since 1970, 0 for never.

    `fetches_not_found` of the `fetches_allowed` handed nothing out: the broker did not hold the secret.
    `unserved` is the path of a socket of the project that nobody can connect to: it was removed, or could not be made.
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
    """True if the manifest was found to allow more than the broker goes by; the field is missing otherwise."""
    unserved: str | None = None


class ProjectStatus(ProjectFacts):
    """One project in the list of them."""

    FIRST = ("name", "socket_path", "allowlist_size", "cache_entries")
    allowlist_size: int


class ProjectDetail(Reply, ProjectFacts):
    """Everything about one project: its state, and what its manifest said when it was last validated."""

    FIRST = ("ok", "name", "socket_path", "project_path", "allowlist", "ttl_seconds", "max_entries", "allowed_uids")
    project_path: str
    allowlist: list[str]
    ttl_seconds: int
    max_entries: int
    allowed_uids: list[int]


class BrokerFacts(Message):
    """What is shown of the broker everywhere. Times are microseconds since 1970, 0 for never."""

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
    """The broker. `projects_next` is there where not all projects fitted: ask again with it as `after`. `unserved_count` projects
    have a socket that nobody can connect to.

    What version 2 has always had comes first and in its order, for clients that take the line apart with a pattern.
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
    """What a `get` would be answered now: `decision`, `outcome` and `reason` as its audit record would have them."""

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
    """The credentials of a unit; `rules` is how many rules the configuration has in all."""

    unit: str
    credentials: list[UnitCredential]
    rules: int


class Readiness(Reply):
    """Whether the broker holds a snapshot, and which; `generation` counts on when the store is cleared."""

    ready: bool
    generation: int


class BoundSecrets(Reply):
    """The bindings of each secret for which the manifest has any, as its tables spell them: remo-broker-manifest(5)."""

    bindings: dict[str, list[dict[str, object]]]


# --- the watch streams on the admin and the project sockets ------------------------------------------------------------


PUSHED = "pushed"
CLEARED = "cleared"
RELOADED = "reloaded"


class StoreState(Reply):
    """The store as it is now: sent first, then with an `event` whenever it changes: `pushed` or `cleared`."""

    start_usec: int
    generation: int
    secret_count: int
    secrets_loaded_usec: int
    event: str | None = None


class ProjectState(Reply):
    """What a project may fetch, and from which generation: sent first, then with an `event` whenever something of it
    changes: `pushed`, `cleared` or `reloaded`."""

    project: str
    start_usec: int
    generation: int
    ready: bool
    allowlist: list[str]
    event: str | None = None


class SignOfLife(Message):
    """An empty object: nothing has changed for `SIGN_OF_LIFE_SECONDS`."""


# --- the watch stream on the status socket ---------------------------------------------------------------------------


class BrokerEvent(BrokerFacts):
    """The broker as it is now: sent first, then at every change; for counters alone, at most once a second."""

    event: str = "broker"
    audit_healthy: bool
    audit_dropped: int


class ProjectEvent(ProjectStatus):
    """A project as it is now: new, or changed."""

    event: str = "project"


class RemovedEvent(Message):
    """A project that is no longer registered."""

    event: str = "removed"
    name: str


class SyncedEvent(Message):
    """The state at the beginning of the watch has been sent; what follows are changes."""

    event: str = "synced"


class StoppingEvent(Message):
    """The broker ends. `idle` is true when it exits because it is idle: the next connect starts it again."""

    event: str = "stopping"
    idle: bool


EVENTS: dict[str, type[Message]] = {
    cls.event: cls for cls in (BrokerEvent, ProjectEvent, RemovedEvent, SyncedEvent, StoppingEvent)
}


# --- requests --------------------------------------------------------------------------------------------------------


class Request(Message):
    """An op. The class declares everything about it but what the broker does: that is one entry in the table of
    handlers of each of its sockets (`remo_broker.broker.handlers`)."""

    OP: ClassVar[str] = ""
    SOCKETS: ClassVar[tuple[str, ...]] = ()
    """The kinds of sockets that answer it."""
    REPLIES: ClassVar[tuple[type[Message], ...]] = (Done,)
    """The kinds of lines that answer it when it does not fail: one line, or many if it is a stream."""
    CODES: ClassVar[tuple[Code, ...]] = ()
    """The codes that it may fail with, besides those that any op of the socket may fail with (`ANY_OP_CODES`)."""
    REPEATABLE: ClassVar[bool] = False
    """Whether asking twice changes nothing, so that a client may ask again when a connection turns out to be dead."""


class Get(Request):
    """Fetch one secret. A binary secret is answered with `BinaryValue`."""

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
    """Whether secrets have been pushed. `remo-secret wait` asks this, because a `get` would be audited as a fetch."""

    OP = "ready"
    SOCKETS = (PROJECT,)
    REPLIES = (Readiness,)
    REPEATABLE = True


class Peek(Request):
    """What a `get` would be answered, without one: nothing is fetched or audited. It counts for the rate limit."""

    OP = "peek"
    SOCKETS = (PROJECT,)
    REPLIES = (Explanation,)
    REPEATABLE = True
    name: str


class Bindings(Request):
    """Where each secret belongs, as the registered manifest says: for `remo-secret exec` and `render`."""

    OP = "bindings"
    SOCKETS = (PROJECT,)
    REPLIES = (BoundSecrets,)
    REPEATABLE = True


class Register(Request):
    """With `replace`, a registered project of the name is replaced: directory, manifest and users; its sockets stay. With
    `any_name`, neither the manifest nor the directory has to have the name.
    """

    OP = "register"
    SOCKETS = (ADMIN,)
    REPLIES = (Registered,)
    CODES = (Code.PROJECT_EXISTS, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_INVALID, Code.MANIFEST_UNREADABLE)
    name: str
    project_path: str
    allowed_uids: list[int] = []  # noqa: RUF012 - never changed; a tuple would not be what the JSON has
    replace: bool = False
    any_name: bool = False


class Unregister(Request):
    OP = "unregister"
    SOCKETS = (ADMIN,)
    CODES = (Code.PROJECT_UNKNOWN,)
    name: str


class Reload(Request):
    """Adopt what the manifest says now. With `sha256`, only if that is still the manifest's."""

    OP = "reload"
    SOCKETS = (ADMIN,)
    REPLIES = (Reloaded,)
    CODES = (Code.PROJECT_UNKNOWN, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_INVALID, Code.MANIFEST_UNREADABLE)
    name: str
    sha256: str | None = None


class Preview(Request):
    """Compare a project's manifest with what the broker goes by. With `adopt_narrower`, adopt what takes something away;
    what would allow more waits for `reload`.
    """

    OP = "preview"
    SOCKETS = (ADMIN,)
    REPLIES = (Difference,)
    CODES = (Code.PROJECT_UNKNOWN, Code.MANIFEST_NOT_FOUND, Code.MANIFEST_INVALID, Code.MANIFEST_UNREADABLE)
    name: str
    adopt_narrower: bool = False


class PushCreds(Request):
    """Replace every secret. The broker reads the three objects in place and never builds them.

    `expires` has a time (RFC 3339) for secrets that are not given out from then on.
    """

    OP = "push-creds"
    SOCKETS = (ADMIN,)
    REPLIES = (Pushed,)
    CODES = (Code.INVALID_PAYLOAD, Code.PAYLOAD_TOO_LARGE)
    SECRET_FIELDS = frozenset({"secrets", "secrets_b64", "expires"})  # a push gone wrong may have a value anywhere
    secrets: dict[str, str | dict[str, str]] = {}  # noqa: RUF012 - never changed
    secrets_b64: dict[str, str] = {}  # noqa: RUF012 - never changed
    expires: dict[str, str] = {}  # noqa: RUF012 - never changed


class ClearCreds(Request):
    OP = "clear-creds"
    SOCKETS = (ADMIN,)


class Status(Request):
    """`after` is the `projects_next` of an earlier answer: the list goes on behind that project."""

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
    """What would become of a `get` of `secret` by project `name`, without doing it: nothing is fetched or audited.

    `uid` is whose connection it would be; without it, that of somebody whom the project allows.
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
    """Follow a project on its socket. Not a fetch, so not in the audit."""

    OP = "watch"
    SOCKETS = (PROJECT,)
    REPLIES = (ProjectState, SignOfLife)


class ExplainUnit(Request):
    """Which credentials the configuration gives `unit`. Nothing is fetched or audited."""

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


# Op to request, for each kind of socket.
PROJECT_REQUESTS = _requests_of(PROJECT)
ADMIN_REQUESTS = _requests_of(ADMIN)
STATUS_REQUESTS = _requests_of(STATUS)
