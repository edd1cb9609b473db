"""The client for a project's socket."""

from __future__ import annotations

from remo_broker.client.connection import BaseClient, watch
from remo_broker.client.errors import BadReply
from remo_broker.client.exchange import Exchange
from remo_broker.client.value import SecretValue
from remo_broker.protocol.ops import Bindings, Get, Info, Peek, Ping, Ready, WatchProject
from remo_broker.protocol.replies import (
    BinaryValue,
    BoundSecrets,
    Explanation,
    Pong,
    ProjectInfo,
    ProjectState,
    Readiness,
    Value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


class Client(BaseClient):
    """A client of a project's socket: fetches this project's secrets."""

    GREETS = True

    def get(self, name: str) -> SecretValue:
        """One secret.

        Raises `Denied`, `NotFound`, `RateLimited`, `PeerUnexpected` or another `ClientError`.
        """
        return secret_value(name, self._exchange(Get(name=name)))

    def ping(self) -> Pong:
        """The broker's version, and the socket's project."""
        return self.ask(Ping(), Pong)

    def info(self) -> ProjectInfo:
        """The names that the project may fetch, in the manifest's order."""
        return checked_info(self.path, self.ask(Info(), ProjectInfo))

    def peek(self, name: str) -> Explanation:
        """What the broker would reply to a `get`. Not a fetch, so not audited."""
        return self.ask(Peek(name=name), Explanation)

    def bindings(self) -> BoundSecrets:
        """The variables and files of each secret, from the registered manifest."""
        return self.ask(Bindings(), BoundSecrets)

    def ready(self) -> Readiness:
        """Whether the broker has received a push since it started. Not a fetch, so not audited."""
        return self.ask(Ready(), Readiness)

    def watch(self) -> Iterator[ProjectState]:
        """Yield the project's state now and at each change, until the broker closes the stream.

        Opens its own connection and waits for each state without a timeout.
        """
        return watch(self, WatchProject(), ProjectState)


def checked_info(path: str, info: ProjectInfo) -> ProjectInfo:
    """Raise `BadReply` for an invalid name in `hosts`; `build` has checked the others."""
    from remo_broker.protocol.names import is_secret_name

    if not all(is_secret_name(name) for name in (info.hosts or {}).values()):
        raise BadReply(path, "'hosts' has a name that is not valid")
    return info


def is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form: JSON can spell a lone surrogate, a broker never does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def secret_value(name: str, exchange: Exchange) -> SecretValue:
    """The reply to a `get`."""
    if "value_b64" not in exchange.reply:
        text = exchange.result(Value)
        if not is_unicode(text.expires_at or ""):
            raise BadReply(exchange.path, "'expires_at' is not text")
        if not is_unicode(text.value):
            raise BadReply(exchange.path, "'value' is not text")
        return SecretValue(name, text.value, text.ttl_seconds, text.generation, text.expires_at)
    import binascii

    binary = exchange.result(BinaryValue)
    if not is_unicode(binary.expires_at or ""):
        raise BadReply(exchange.path, "'expires_at' is not text")
    # The decoder skips characters outside the alphabet; Python 3.9 lacks its strict mode.
    digits = binary.value_b64.rstrip("=")
    padding = len(binary.value_b64) - len(digits)
    if len(binary.value_b64) % 4 or padding > 2 or not _BASE64.issuperset(digits):
        raise BadReply(exchange.path, "'value_b64' is not base64")
    content = binascii.a2b_base64(binary.value_b64)
    return SecretValue(name, content, binary.ttl_seconds, binary.generation, binary.expires_at)
