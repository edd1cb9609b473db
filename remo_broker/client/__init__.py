"""The client library: `Client` for a project's socket, `AdminClient` and `StatusClient` for the host's, and async twins.

    from remo_broker.client import Client, NotFound

    with Client("/run/remo-broker/myrepo.sock") as broker:
        token = broker.get("GITHUB_TOKEN").reveal()

Only the standard library is needed. Everything that goes wrong is a `ClientError`: `BrokerError` and its subclasses, one
a code of the protocol, when the broker refused; `Unreachable`, `TimedOut`, `ConnectionLost`, `WrongVersion` and
`BadReply` when there was no answer to go by; `Unsendable` when nothing was asked. No repr and no error shows a value.

What a name stands for is imported when it is first used: `remo-secret get` shall not pay for asyncio.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.client.admin import AdminClient, StatusClient
    from remo_broker.client.aio import AsyncAdminClient, AsyncClient, AsyncStatusClient
    from remo_broker.client.errors import (
        BackendFailed,
        BadReply,
        BrokerError,
        ClientError,
        ConnectionLost,
        Denied,
        InternalError,
        InvalidPayload,
        ManifestInvalid,
        ManifestNotFound,
        ManifestUnreadable,
        NotFound,
        PayloadTooLarge,
        PeerUnexpected,
        ProjectExists,
        ProjectUnknown,
        ProtocolError,
        RateLimited,
        TimedOut,
        Unreachable,
        Unsendable,
        WrongVersion,
    )
    from remo_broker.client.project import Client
    from remo_broker.client.value import SecretValue

__all__ = [
    "AdminClient",
    "AsyncAdminClient",
    "AsyncClient",
    "AsyncStatusClient",
    "BackendFailed",
    "BadReply",
    "BrokerError",
    "Client",
    "ClientError",
    "ConnectionLost",
    "Denied",
    "InternalError",
    "InvalidPayload",
    "ManifestInvalid",
    "ManifestNotFound",
    "ManifestUnreadable",
    "NotFound",
    "PayloadTooLarge",
    "PeerUnexpected",
    "ProjectExists",
    "ProjectUnknown",
    "ProtocolError",
    "RateLimited",
    "SecretValue",
    "StatusClient",
    "TimedOut",
    "Unreachable",
    "Unsendable",
    "WrongVersion",
]

_HOMES = {
    "Client": "project",
    "SecretValue": "value",
    "AdminClient": "admin",
    "StatusClient": "admin",
    "AsyncClient": "aio",
    "AsyncAdminClient": "aio",
    "AsyncStatusClient": "aio",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
