"""The client's exceptions. All derive from `ClientError`; none holds a secret's value."""

from __future__ import annotations

from remo_broker import PROTOCOL_VERSION
from remo_broker.protocol.codes import Code
from remo_broker.protocol.replies import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ClientError(Exception):
    """Any failure of a request: `message` says what failed and why, `hint` what the user can do, if
    anything.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by attributes: the constructors take different arguments."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ClientError], arguments: tuple[object, ...], fields: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(fields)
    return error


class Unsendable(ClientError):
    """A string in the request contains a lone surrogate, so it has no UTF-8 form. Nothing was sent.

    Python uses lone surrogates for bytes that are not UTF-8, on the command line and in file names.
    """

    def __init__(self) -> None:
        super().__init__("a name, path or value in the request is not UTF-8", hint="push such a value as bytes")


class Unreachable(ClientError):
    """Cannot connect to `path`. The message says whether the socket exists and who may use it."""

    def __init__(self, path: str, message: str, *, hint: str | None = None, temporary: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.temporary = temporary
        """Whether waiting may help: the socket does not exist yet, or nothing listens on it."""


class Untrusted(ClientError):
    """The process that listens on the socket is not the broker: it belongs to another user.

    Nothing was sent.
    """

    def __init__(self, path: str, uid: int, user: str) -> None:
        super().__init__(
            f"{path}: the listener belongs to user {user}, not to the broker",
            hint=f"if a broker runs as that user on purpose, set REMO_BROKER_UID={uid}; otherwise remove the socket",
        )
        self.path = path
        self.uid = uid


class ConnectionLost(ClientError):
    """The broker closed the connection before it replied: it was restarted or killed."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: the broker closed the connection before it replied", hint="try again")
        self.path = path


class TimedOut(ClientError):
    """No reply within the client's timeout, in seconds."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(
            f"{path}: no reply within {seconds:g} s",
            hint="run 'systemctl status remo-broker.service' on the host",
        )
        self.path = path


class WrongVersion(ClientError):
    """The broker speaks another version of the protocol."""

    def __init__(self, path: str, theirs: int) -> None:
        super().__init__(
            f"{path}: the broker speaks protocol version {theirs}, this client version {PROTOCOL_VERSION}",
            hint=f"upgrade the {'broker' if theirs < PROTOCOL_VERSION else 'client'}",
        )
        self.path = path
        self.theirs = theirs


class BadReply(ClientError):
    """The reply does not follow the protocol: the listener is probably not a broker."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: malformed reply: {what}", hint="check that this is a socket of remo-broker")
        self.path = path


class BrokerError(ClientError):
    """The broker refused the request.

    `code` and `reason` are the protocol's; `message` is the broker's text.
    """

    def __init__(self, code: str, reason: str | None, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, reason={self.reason!r}, message={self.message!r})"


class Denied(BrokerError):
    """The project may not fetch this secret, or no project is registered for this socket."""


class NotFound(BrokerError):
    """The project may fetch the secret, but the broker lacks it; `reason` says if it holds any."""


class RateLimited(BrokerError):
    """The project exceeded its rate limit; `retry_after_seconds` is set."""


class ProtocolError(BrokerError):
    """The broker does not know the request; an older broker may not know a newer request."""


class InternalError(BrokerError):
    """An internal error of the broker, or of something that it depends on; see its journal."""


class PeerUnexpected(BrokerError):
    """The project does not allow this uid."""


class BackendFailed(BrokerError):
    """A code that only protocol version 1 sent."""


class ManifestInvalid(BrokerError):
    """The manifest breaks a rule; the message names the key and what is allowed."""


class ManifestNotFound(BrokerError):
    """The project's directory has no manifest in any of the three places."""


class ManifestUnreadable(BrokerError):
    """The manifest could not be read: permission, not a regular file, too large, or too slow."""


class ProjectUnknown(BrokerError):
    """No such project is registered."""


class ProjectExists(BrokerError):
    """A project of that name is registered already."""


class InvalidPayload(BrokerError):
    """The push was invalid; nothing was changed."""


class PayloadTooLarge(BrokerError):
    """The push exceeds 1 MiB; nothing was changed."""


BY_CODE: dict[str, type[BrokerError]] = {
    Code.DENIED: Denied,
    Code.NOT_FOUND: NotFound,
    Code.RATE_LIMITED: RateLimited,
    Code.PROTOCOL_ERROR: ProtocolError,
    Code.INTERNAL_ERROR: InternalError,
    Code.PEER_UNEXPECTED: PeerUnexpected,
    Code.BACKEND_ERROR: BackendFailed,
    Code.BACKEND_UNREACHABLE: BackendFailed,
    Code.MANIFEST_INVALID: ManifestInvalid,
    Code.MANIFEST_NOT_FOUND: ManifestNotFound,
    Code.MANIFEST_UNREADABLE: ManifestUnreadable,
    Code.PROJECT_UNKNOWN: ProjectUnknown,
    Code.PROJECT_EXISTS: ProjectExists,
    Code.INVALID_PAYLOAD: InvalidPayload,
    Code.PAYLOAD_TOO_LARGE: PayloadTooLarge,
}


def refusal(failure: Failure) -> BrokerError:
    """The exception for a failure reply; an unknown code becomes a plain `BrokerError`."""
    kind = BY_CODE.get(failure.code, BrokerError)
    return kind(failure.code, failure.reason, failure.message, failure.retry_after_seconds)
