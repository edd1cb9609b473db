"""One request and its reply, without I/O: the synchronous and the asyncio client both drive this.

On a project's socket, the first request of a connection goes out with a `ping` in one write. The
client thus detects another protocol version before it parses the reply, without another round trip.
"""

from __future__ import annotations

import json

from remo_broker import PROTOCOL_VERSION
from remo_broker.client import errors
from remo_broker.client.scanner import is_too_deep
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.message import FieldError, Message, from_fields
from remo_broker.protocol.names import is_project_name, is_secret_name
from remo_broker.protocol.ops import Ping, Request
from remo_broker.protocol.replies import Failure
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from remo_broker.protocol.lines import LineBuffer

    M = TypeVar("M", bound=Message)


class Exchange:
    """Send `data`, then pass each received line to `feed` until it returns True; `reply` then has
    the fields.
    """

    __slots__ = ("_ping_due", "answered", "data", "path", "repeatable", "reply", "request")

    def __init__(self, path: str, request: Request, *, greet: bool) -> None:
        self.path = path
        self.request = request
        self.repeatable = request.REPEATABLE
        self.answered = False
        """Whether the reply to the request itself, success or refusal, has come; it is the last
        line.
        """
        # Do not send a ping before a ping.
        self._ping_due = greet and not isinstance(request, Ping)
        self.data = (encode(Ping()) if self._ping_due else b"") + encode(request)
        self.reply: dict[str, Any] = {}

    def feed(self, line: bytes) -> bool:
        """Take one line without its newline.

        Raises `ClientError` for a failure or a malformed reply.
        """
        self.answered = not self._ping_due
        fields = parse_object(self.path, line)
        if fields.get("ok") is not True:
            raise refusal_in(self.path, fields)
        if self._ping_due or isinstance(self.request, Ping):
            check_version(self.path, fields)
        if self._ping_due:
            self._ping_due = False
            return False
        self.reply = fields
        return True

    def result(self, kind: type[M]) -> M:
        return build(self.path, kind, self.reply)


def encode(request: Request) -> bytes:
    """A request as a line, newline included. Raises `Unsendable`."""
    fields = {"op": request.OP} | request.to_json()
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        pass
    # Raised outside the handler: UnicodeEncodeError holds the whole text, secrets included, and
    # shows it in its repr.
    raise errors.Unsendable


def reply_line(path: str, lines: LineBuffer) -> bytes | None:
    """The next whole line; None if more has to be read. Raises `BadReply` if it is too long."""
    line = lines.next_line()
    if len(lines if line is None else line) >= MAX_MESSAGE:
        raise errors.BadReply(path, f"it is longer than {MAX_MESSAGE // 1024} KiB")
    return line


def parse_object(path: str, line: bytes) -> dict[str, Any]:
    try:
        # Decoded here, because json.loads would also take UTF-16, a byte-order mark and encoded
        # surrogates.
        text = str(line, "utf-8")
        fields = None if is_too_deep(text) else json.loads(text)
    except (ValueError, RecursionError):
        # Raised outside the handler: the exception holds the line, and the line may hold a secret.
        fields = None
    if not isinstance(fields, dict):
        raise errors.BadReply(path, "not a JSON object")
    return fields


def refusal_in(path: str, fields: dict[str, Any]) -> errors.ClientError:
    """The exception for a reply that is not a success."""
    if fields.get("ok") is not False:
        return errors.BadReply(path, "'ok' is missing")
    failure = build(path, Failure, fields)
    if failure.reason == Reason.UNKNOWN_OP:
        # The path helps here: the socket is of another kind, or an older broker's.
        failure = Failure(**(failure.__dict__ | {"message": f"{path}: {failure.message}"}))
    return errors.refusal(failure)


def check_version(path: str, fields: dict[str, Any]) -> None:
    theirs = fields.get("protocol_version")
    if type(theirs) is not int:
        raise errors.BadReply(path, "'protocol_version' is missing or not an integer")
    if theirs != PROTOCOL_VERSION:
        raise errors.WrongVersion(path, theirs)


def build(path: str, kind: type[M], fields: dict[str, Any]) -> M:
    """Convert a reply's fields to a message. Raises `BadReply`."""
    try:
        message = from_fields(kind, fields)
        _check_names(path, message)
        return message
    except FieldError as error:
        field, kind_name = error.field, error.kind.removesuffix(" | None")
        what = f"'{field}' is missing" if error.missing else f"'{field}' is not of type {kind_name}"
    # Raised outside the handler: the frames of FieldError hold the reply, which may hold a secret.
    raise errors.BadReply(path, what)


def _check_names(path: str, message: Message) -> None:
    """Raise `BadReply` for an invalid name: they become paths, variables and terminal output."""
    for field, value in message.__dict__.items():
        if field in message.PROJECT_NAMES:
            if not is_project_name(value):
                raise errors.BadReply(path, f"'{field}' is not a valid name")
        elif field in message.SECRET_NAMES:
            if not all(is_secret_name(name) for name in value or ()):
                raise errors.BadReply(path, f"'{field}' has a name that is not valid")
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            for one in value:
                _check_names(path, one)
        elif isinstance(value, Message):
            _check_names(path, value)


def wants_version(error: errors.ClientError) -> bool:
    """Whether another protocol version may explain this error."""
    return isinstance(error, errors.BadReply) or (
        isinstance(error, errors.BrokerError) and error.code == Code.PROTOCOL_ERROR
    )
