"""The client library: synchronous and asyncio clients of the broker's sockets.

    from remo_broker.client import Client, NotFound

    with Client("/run/remo-broker/myrepo.sock") as broker:
        token = broker.get("GITHUB_TOKEN").reveal()

`Client` is for a project's socket, `AdminClient` and `StatusClient` are for the host's; `Async…`
names are their asyncio twins. Needs only the standard library. Every failure is a `ClientError`:
`BrokerError` and its subclasses (one for each code of the protocol) when the broker refused the
request; `Unreachable`, `Untrusted`, `TimedOut`, `ConnectionLost`, `WrongVersion` and `BadReply`
when there is no valid reply; `Unsendable` when nothing was sent. No repr and no error shows a
secret's value.

Names are imported on first use, so that `remo-secret get` does not import asyncio.
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
        Untrusted,
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
    "Untrusted",
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
