"""`remo-secret wait`, and `--wait` of the other commands: a container may start before the broker
has secrets.
"""

from __future__ import annotations

import time

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.client.errors import ConnectionLost, RateLimited, TimedOut, Unreachable
from remo_broker.client.project import Client
from remo_broker.protocol.clock import monotonic
from remo_broker.secret.commands import (
    DEFAULT_WAIT_SECONDS,
    EXIT_NOT_FOUND,
    EXIT_UNREACHABLE,
    LONGEST_WAIT_SECONDS,
    TIMEOUT,
)
from remo_broker.secret.project_socket import NoSocketYet, socket_path

# Short enough to go unnoticed, long enough for a hundred containers starting at once.
POLL_SECONDS = 0.1
# The least time for the first reply: `--timeout=0` asks once, which may have to start the broker.
FIRST_REPLY_SECONDS = 1.0


def wait(arguments: Arguments) -> None:
    """`remo-secret wait`."""
    seconds = arguments.number(TIMEOUT, 0, LONGEST_WAIT_SECONDS)
    wait_until_ready(arguments, DEFAULT_WAIT_SECONDS if seconds is None else seconds)


def wait_until_ready(arguments: Arguments, seconds: int) -> None:
    """Return when the broker has a snapshot.

    At the timeout, raises `Problem` with what is missing.
    """
    deadline = monotonic() + seconds
    reply_seconds = max(seconds, FIRST_REPLY_SECONDS)
    while (obstacle := find_obstacle(arguments, reply_seconds)) is not None:
        time.sleep(max(0.0, min(POLL_SECONDS, deadline - monotonic())))
        reply_seconds = deadline - monotonic()
        if reply_seconds <= 0:
            raise Problem(f"waited {seconds} s: {obstacle}", hint=obstacle.hint, status=obstacle.status)


def find_obstacle(arguments: Arguments, seconds: float) -> Problem | None:
    """Why there are no secrets yet; None if there are. Raises errors that waiting cannot fix.

    Waits up to `seconds` for a reply.
    """
    try:
        with Client(socket_path(arguments), timeout=seconds) as client:
            if client.ready().ready:
                return None
        return Problem(
            "the broker has no secrets yet",
            hint="have the sidecar push them, or run 'remo-brokerctl push' on the host",
            status=EXIT_NOT_FOUND,
        )
    except NoSocketYet as problem:  # the directory or the socket is not mounted yet
        return problem
    except Unreachable as error:
        if not error.temporary:
            raise
        return Problem(error.message, hint=error.hint, status=EXIT_UNREACHABLE)
    except TimedOut as error:
        return Problem(f"{error.path}: connected, but there was no reply", hint=error.hint, status=EXIT_UNREACHABLE)
    except (ConnectionLost, RateLimited) as error:
        return Problem(error.message, hint=error.hint, status=EXIT_UNREACHABLE)
