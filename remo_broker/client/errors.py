"""Everything that the client raises: one family, so that `except ClientError` is enough for who does not care which.

The text of an error is what the user reads: it says what to do. None holds a secret's value.
"""

from __future__ import annotations

from remo_broker import PROTOCOL_VERSION
from remo_broker.protocol.ops import Code, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ClientError(Exception):
    """Any failure of a request: `message` says what failed and why, `hint` what the user can do, if anything."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole again in another process, whatever its class is made from."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ClientError], arguments: tuple[object, ...], fields: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(fields)
    return error


class Unsendable(ClientError):
    """A text of the request is none that can be sent: it has half of a surrogate pair. Nothing was sent.

    Python has such halves for bytes that are not UTF-8, on the command line and in names of files.
    """

    def __init__(self) -> None:
        super().__init__("a name, path or value that is not UTF-8 cannot be sent; push such a value as bytes")


class Unreachable(ClientError):
    """Nobody could be spoken to at `path`. The text says whether it exists and who may use it."""

    def __init__(self, path: str, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.temporary = temporary
        """Whether it may go away by itself: the socket is not there yet, or nobody listens. Not so: no permission."""


class ConnectionLost(ClientError):
    """The broker closed the connection before it answered: it restarts, or it was killed."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: the broker closed the connection before it answered; try again")
        self.path = path


class TimedOut(ClientError):
    """No answer within the client's timeout, in seconds."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(
            f"{path}: no answer within {seconds:g} s; on the host, see 'systemctl status remo-broker.service'"
        )
        self.path = path


class WrongVersion(ClientError):
    """The other side speaks another version of the protocol."""

    def __init__(self, path: str, theirs: int) -> None:
        older = "broker" if theirs < PROTOCOL_VERSION else "client"
        super().__init__(
            f"{path}: the broker speaks protocol version {theirs}, this client version {PROTOCOL_VERSION}; "
            f"upgrade the {older}"
        )
        self.path = path
        self.theirs = theirs


class BadReply(ClientError):
    """The answer is not one of the protocol: whoever listens there is no broker."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}; is this a socket of remo-broker?")
        self.path = path


class BrokerError(ClientError):
    """The broker refused. `code` and `reason` are the protocol's words, for programs; the text is the broker's own."""

    def __init__(self, code: str, reason: str | None, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, reason={self.reason!r}, message={self.message!r})"


class Denied(BrokerError):
    """The project may not have this secret, whether or not the broker holds it; or no project is registered here."""


class NotFound(BrokerError):
    """The project may have it, but the broker does not hold it; `reason` says whether it holds anything at all."""


class RateLimited(BrokerError):
    """More requests than the project may make; `retry_after_seconds` is set."""


class ProtocolError(BrokerError):
    """The broker did not understand the request: it is older than this client, or no client of ours sent it."""


class InternalError(BrokerError):
    """The broker's own fault, or something that it needs fails; its journal tells more."""


class PeerUnexpected(BrokerError):
    """This uid is not one that the project allows."""


class BackendFailed(BrokerError):
    """The two codes that only version 1 sent."""


class ManifestInvalid(BrokerError):
    """The manifest breaks a rule: the text names the key and what is allowed."""


class ManifestNotFound(BrokerError):
    """The project has none in any of the three places."""


class ManifestUnreadable(BrokerError):
    """No permission, not a regular file, too large, or it took too long."""


class ProjectUnknown(BrokerError):
    """No such project is registered."""


class ProjectExists(BrokerError):
    """A project of that name is registered already."""


class InvalidPayload(BrokerError):
    """A push with a fault; nothing was changed."""


class PayloadTooLarge(BrokerError):
    """A push of more than 1 MiB; nothing was changed."""


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
    """The exception for a failure reply; a code that is not known yet is a plain `BrokerError`."""
    kind = BY_CODE.get(failure.code, BrokerError)
    return kind(failure.code, failure.reason, failure.message, failure.retry_after_seconds)
