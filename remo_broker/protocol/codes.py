"""The fixed words of the protocol, version 2: kinds of sockets, error codes and reasons."""

from __future__ import annotations

try:
    from enum import StrEnum
except ImportError:  # before Python 3.11, in a container
    from remo_broker.protocol.str_enum import StrEnum  # type: ignore[assignment]


# The kinds of sockets, as a request's `SOCKETS` names them.
PROJECT = "project"
ADMIN = "admin"
STATUS = "status"


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
