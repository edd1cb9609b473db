"""A project's socket, as a class."""

from __future__ import annotations

from remo_broker.client.connection import Connection
from remo_broker.client.errors import BadReply
from remo_broker.client.exchange import Exchange
from remo_broker.client.value import SecretValue
from remo_broker.protocol.ops import BinaryValue, Get, Info, Ping, Pong, ProjectInfo, Readiness, Ready, Value


class Client(Connection):
    """What a project's tools may ask: its own secrets, and nothing else."""

    GREETS = True

    def get(self, name: str) -> SecretValue:
        """One secret. Raises `Denied`, `NotFound`, `RateLimited`, `PeerUnexpected` or another `ClientError`."""
        return secret_value(name, self._exchange(Get(name=name)))

    def ping(self) -> Pong:
        """The broker's version, and which project the socket is for."""
        return self.ask(Ping(), Pong)

    def info(self) -> ProjectInfo:
        """The names that the project may fetch, in the manifest's order."""
        return self.ask(Info(), ProjectInfo)

    def ready(self) -> Readiness:
        """Whether secrets have been pushed since the broker started; not a fetch, so not in the audit."""
        return self.ask(Ready(), Readiness)


def secret_value(name: str, exchange: Exchange) -> SecretValue:
    """What a `get` was answered."""
    if "value_b64" not in exchange.reply:
        text = exchange.result(Value)
        return SecretValue(name, text.value, text.ttl_seconds, text.generation)
    import binascii

    binary = exchange.result(BinaryValue)
    try:
        content = binascii.a2b_base64(binary.value_b64, strict_mode=True)
    except ValueError:  # letters beyond ASCII too
        raise BadReply(exchange.path, "'value_b64' in the answer is not base64") from None
    return SecretValue(name, content, binary.ttl_seconds, binary.generation)
