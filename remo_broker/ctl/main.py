"""`remo-brokerctl`: where it starts, and what each failure is worth as an exit status."""

from __future__ import annotations

import io
import sys

from remo_broker.cli.program import EXIT_FAILURE, run
from remo_broker.client.errors import ClientError
from remo_broker.ctl.commands import PROGRAM


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal whose encoding lacks a letter gets its escape, not an error.
        sys.stdout.reconfigure(errors="backslashreplace")
    return run(PROGRAM, sys.argv[1:] if argv is None else argv, status_of)


def status_of(error: Exception) -> int | None:
    """The exit status for an error that is no bug; None for a bug."""
    return EXIT_FAILURE if isinstance(error, ClientError) else None
