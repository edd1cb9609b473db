"""`--wait` and its default, for commands that fetch.

A command that need not wait imports nothing more.
"""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.secret.commands import DEFAULT_WAIT_SECONDS, LONGEST_WAIT_SECONDS, WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

# The protocol's reason for a broker that is up but empty; copied, to avoid importing `ops`.
NO_SNAPSHOT = "no_snapshot"


def with_secrets(arguments: Arguments, fetch: Callable[[], T]) -> T:
    """Call `fetch` once the broker has secrets; wait up to `--wait`, 15 s by default.

    Without `--wait`, wait only for a broker that is up but empty; raise any other failure at once.
    """
    if arguments.flag(WAIT):
        wait_as_asked(arguments)
        return fetch()
    try:
        return fetch()
    except Exception as error:
        if getattr(error, "reason", None) != NO_SNAPSHOT:
            raise
    from remo_broker.secret.wait import wait_until_ready

    wait_until_ready(arguments, DEFAULT_WAIT_SECONDS)
    return fetch()


def wait_as_asked(arguments: Arguments) -> None:
    """Wait up to `--wait`; 0 disables waiting."""
    seconds = arguments.number(WAIT, 0, LONGEST_WAIT_SECONDS)
    if seconds:
        from remo_broker.secret.wait import wait_until_ready

        wait_until_ready(arguments, seconds)
