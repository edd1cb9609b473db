"""`remo-sidecar`: its entry point."""

from __future__ import annotations

import sys

from remo_broker.cli.program import EXIT_FAILURE, run
from remo_broker.client.errors import ClientError
from remo_broker.sidecar.commands import PROGRAM


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    return run(PROGRAM, sys.argv[1:] if argv is None else argv, status_of)


def status_of(error: Exception) -> int | None:
    """The exit status for an expected error; None for a bug."""
    return EXIT_FAILURE if isinstance(error, ClientError) else None
