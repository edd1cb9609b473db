"""Every op of the protocol, version 2: its fields, sockets, replies and codes.

The broker decodes requests with these classes, the client library encodes them, and
`remo_broker.build.schema` generates `schema/remo-broker.v2.json` from them and from `replies`.
`message` describes what these classes can do.
"""

from __future__ import annotations

from remo_broker.protocol.codes import ADMIN, PROJECT, STATUS, Code
from remo_broker.protocol.message import Message
from remo_broker.protocol.replies import (
    EVENTS,
    BinaryValue,
    BoundSecrets,
    BrokerStatus,
    Difference,
    Done,
    Explanation,
    KeepAlive,
    Pong,
    ProjectDetail,
    ProjectInfo,
    ProjectState,
    Pushed,
    Readiness,
    Registered,
    Reloaded,
    StoreState,
    UnitCredentials,
    Value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


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
    """Register a project. With `replace`, a registered project of that name gets a new manifest and
    users, and keeps its sockets; if it has another directory, it is unregistered first. With
    `any_name`, the manifest and the directory may have other names."""

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

    `expires` gives secrets a time (RFC 3339) from which they are no longer served. With `changes`,
    the reply says what has changed.
    """

    OP = "push-creds"
    SOCKETS = (ADMIN,)
    REPLIES = (Pushed,)
    CODES = (Code.INVALID_PAYLOAD, Code.PAYLOAD_TOO_LARGE)
    SECRET_FIELDS = frozenset({"secrets", "secrets_b64", "expires"})  # a malformed push may hold values anywhere
    secrets: dict[str, str | dict[str, str]] = {}  # noqa: RUF012 - never changed
    secrets_b64: dict[str, str] = {}  # noqa: RUF012 - never changed
    expires: dict[str, str] = {}  # noqa: RUF012 - never changed
    changes: bool = False


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
    REPLIES = (StoreState, KeepAlive)


class WatchProject(Request):
    """Follow a project on its socket. This is not a fetch, so it is not audited."""

    OP = "watch"
    SOCKETS = (PROJECT,)
    REPLIES = (ProjectState, KeepAlive)


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
