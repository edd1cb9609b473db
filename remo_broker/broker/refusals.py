"""The one exception that becomes a failure reply. Any other exception is a bug and becomes
`internal_error`."""

from __future__ import annotations

from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.message import encode
from remo_broker.protocol.replies import Failure


class Refused(Exception):
    """A request that gets a failure reply.

    `message` is for people: it says what to do and repeats nothing from the request except names
    that matched their pattern. `fatal` closes the connection after the reply, because what follows
    on it cannot be parsed.
    """

    def __init__(
        self,
        code: Code,
        reason: Reason | None,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.fatal = fatal

    def line(self) -> bytes:
        """The failure as it is sent, newline included."""
        failure = Failure(
            code=self.code,
            message=self.message,
            reason=self.reason,
            retry_after_seconds=self.retry_after_seconds,
        )
        return encode(failure.to_json())


def protocol_error(reason: Reason, message: str, *, fatal: bool = False) -> Refused:
    return Refused(Code.PROTOCOL_ERROR, reason, message, fatal=fatal)


BUG = Refused(
    Code.INTERNAL_ERROR,
    None,
    "internal error; see 'journalctl -u remo-broker.service' and report it",
)
