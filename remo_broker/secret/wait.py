"""`remo-secret wait`: for the start of a container, which may be quicker than the sidecar."""

from __future__ import annotations

import time

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.client.errors import ConnectionLost, RateLimited, TimedOut, Unreachable
from remo_broker.client.project import Client
from remo_broker.secret.commands import (
    DEFAULT_WAIT_SECONDS,
    EXIT_NOT_FOUND,
    EXIT_UNREACHABLE,
    LONGEST_WAIT_SECONDS,
    TIMEOUT,
)
from remo_broker.secret.locate import NoSocketYet, socket_path

# How often it asks: often enough that nobody notices, seldom enough for a hundred containers that start at once.
POLL_SECONDS = 0.1
# What the first question may take, however short the timeout: `--timeout=0` asks once, and that may start the broker.
FIRST_ANSWER_SECONDS = 1.0


def wait(arguments: Arguments) -> None:
    """Return when the broker has a snapshot; when the time is up, raise what is in the way."""
    seconds = arguments.number(TIMEOUT, 0, LONGEST_WAIT_SECONDS)
    if seconds is None:
        seconds = DEFAULT_WAIT_SECONDS
    deadline = time.monotonic() + seconds
    answer_seconds = max(seconds, FIRST_ANSWER_SECONDS)
    while (in_the_way := obstacle(arguments, answer_seconds)) is not None:
        time.sleep(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
        answer_seconds = deadline - time.monotonic()
        if answer_seconds <= 0:
            raise Problem(f"waited {seconds} s: {in_the_way}", hint=in_the_way.hint, status=in_the_way.status)


def obstacle(arguments: Arguments, seconds: float) -> Problem | None:
    """Why there are no secrets yet; None when there are. Raises what waiting does not help against.

    An answer is waited for `seconds`.
    """
    try:
        with Client(socket_path(arguments), timeout=seconds) as client:
            if client.ready().ready:
                return None
        return Problem(
            "the broker holds no secrets yet; have the sidecar push them with 'remo-brokerctl push'",
            status=EXIT_NOT_FOUND,
        )
    except NoSocketYet as problem:  # the directory or the socket is not mounted yet
        return problem
    except Unreachable as error:
        if not error.temporary:
            raise
        return Problem(error.message, hint=error.hint, status=EXIT_UNREACHABLE)
    except TimedOut as error:
        return Problem(
            f"{error.path}: it was connected to, and nothing answered; on the host, see "
            "'systemctl status remo-broker.service'",
            status=EXIT_UNREACHABLE,
        )
    except (ConnectionLost, RateLimited) as error:
        return Problem(error.message, hint=error.hint, status=EXIT_UNREACHABLE)
