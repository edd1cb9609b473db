"""Log lines to standard error, which systemd passes to the journal with the prefixed priority.

Once journald has stopped, this stream stays dead, even after journald is back. Failed writes are
ignored: no message is worth exiting for.
"""

from __future__ import annotations

import contextlib
import os

_STDERR = 2

_journal = "JOURNAL_STREAM" in os.environ


def notice(text: str) -> None:
    _write(5, text)


def warning(text: str) -> None:
    _write(4, text)


def _write(priority: int, text: str) -> None:
    for line in text.splitlines():
        shown = f"<{priority}>{line}\n" if _journal else f"remo-broker-bus: {line}\n"
        # Not `print`, which would retry at exit and turn its failure into the exit status.
        with contextlib.suppress(OSError):
            os.write(_STDERR, shown.encode(errors="backslashreplace"))
