"""`remo-secret`: the entry point, and the exit status for each kind of failure."""

from __future__ import annotations

import sys

from remo_broker.cli.program import EXIT_FAILURE, run
from remo_broker.secret.commands import (
    EXIT_DENIED,
    EXIT_NOT_FOUND,
    EXIT_RATE_LIMITED,
    EXIT_UNREACHABLE,
    PROGRAM,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    return run(PROGRAM, sys.argv[1:] if argv is None else argv, status_of)


def status_of(error: Exception) -> int | None:
    """The exit status for an expected error; None for a bug."""
    from remo_broker.client import errors

    if isinstance(error, (errors.Denied, errors.PeerUnexpected)):
        return EXIT_DENIED
    if isinstance(error, errors.NotFound):
        return EXIT_NOT_FOUND
    if isinstance(error, (errors.Unreachable, errors.Untrusted, errors.ConnectionLost, errors.TimedOut)):
        return EXIT_UNREACHABLE
    if isinstance(error, errors.RateLimited):
        return EXIT_RATE_LIMITED
    if isinstance(error, errors.ClientError):
        return EXIT_FAILURE
    return None
