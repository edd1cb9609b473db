"""`remo-brokerctl`: its entry point, and the exit status of each failure."""

from __future__ import annotations

import io
import sys

from remo_broker.cli.program import EXIT_FAILURE, run
from remo_broker.client.errors import ClientError
from remo_broker.ctl.commands import PROGRAM


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # If the terminal's encoding lacks a character, print its escape instead of failing.
        sys.stdout.reconfigure(errors="backslashreplace")
    return run(PROGRAM, sys.argv[1:] if argv is None else argv, status_of)


def status_of(error: Exception) -> int | None:
    """The exit status for an expected error; None for a bug."""
    return EXIT_FAILURE if isinstance(error, ClientError) else None
