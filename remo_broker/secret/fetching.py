"""Fetch all secrets of a command, or name each missing one."""

from __future__ import annotations

import time

from remo_broker.cli.program import Problem, report
from remo_broker.cli.text import listed
from remo_broker.client.value import SecretValue
from remo_broker.manifest.bindings import Binding
from remo_broker.protocol.clock import monotonic
from remo_broker.secret.commands import EXIT_DENIED, EXIT_NOT_FOUND
from remo_broker.secret.wait_option import NO_SNAPSHOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from remo_broker.client.errors import BrokerError
    from remo_broker.client.project import Client
    from remo_broker.client.quick import QuickClient

    T = TypeVar("T")

# How long to retry while the rate limit is exceeded: with the broker's default limits, enough for
# the most names that a manifest can have.
RATE_LIMIT_SECONDS = 60.0
# The pause between two attempts if the broker does not name one.
RETRY_SECONDS = 0.2


def fetch(client: Client | QuickClient, bindings: dict[str, list[Binding]]) -> dict[str, SecretValue]:
    """Fetch every secret; omit missing optional ones, with a line on standard error.

    Raises `Problem`, which names each missing or denied secret.
    """
    secrets = {}
    deadline = monotonic() + RATE_LIMIT_SECONDS
    refused: list[tuple[str, BrokerError]] = []
    left_out = []
    for name, bound in bindings.items():
        try:
            secrets[name] = retry_rate_limited(lambda: client.get(name), deadline)  # noqa: B023 - called at once
        except Exception as error:
            from remo_broker.client.errors import Denied, NotFound

            if not isinstance(error, (Denied, NotFound)) or error.reason == NO_SNAPSHOT:
                raise
            if isinstance(error, NotFound) and all(one.optional for one in bound):
                left_out.append(name)
            else:
                refused.append((name, error))
    if refused:
        raise _missing(refused)
    if left_out:
        report(f"remo-secret: without {listed(left_out)}: optional, and the broker does not hold it")
    return secrets


def _missing(refused: list[tuple[str, BrokerError]]) -> Problem:
    from remo_broker.client.errors import Denied

    reasons: dict[str, list[str]] = {}
    for name, refusal in refused:
        reasons.setdefault(refusal.message, []).append(name)
    why = "; ".join(f"{listed(names)}: {message}" for message, names in reasons.items())
    denied = any(isinstance(refusal, Denied) for _, refusal in refused)
    return Problem(
        f"nothing was started or written: {why}",
        hint=next((refusal.hint for _, refusal in refused if refusal.hint), None),
        status=EXIT_DENIED if denied else EXIT_NOT_FOUND,
    )


def retry_rate_limited(ask: Callable[[], T], deadline: float) -> T:
    """Retry while rate-limited: a manifest may have more names than the limit allows at once.

    The broker then says when to retry.
    """
    while True:
        try:
            return ask()
        except Exception as error:
            from remo_broker.client.errors import RateLimited

            if not isinstance(error, RateLimited):
                raise
            pause = max(error.retry_after_seconds or 0, RETRY_SECONDS)
            if pause > deadline - monotonic():  # not added: a hostile one is no float
                raise
            time.sleep(pause)
