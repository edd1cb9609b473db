"""One line to the log: standard error, which systemd hands to the journal with the priority that stands in front.

A journald that was stopped takes no more on that, not even once it is back. Nothing said here is worth ending for.
"""

from __future__ import annotations

import contextlib
import os

_STDERR = 2

_journal = "JOURNAL_STREAM" in os.environ


def notice(text: str) -> None:
    _say(5, text)


def warning(text: str) -> None:
    _say(4, text)


def _say(priority: int, text: str) -> None:
    for line in text.splitlines():
        shown = f"<{priority}>{line}\n" if _journal else f"remo-broker-bus: {line}\n"
        with contextlib.suppress(
            OSError
        ):  # not by `print`, which would try again at the end and make its failure the status
            os.write(_STDERR, shown.encode(errors="backslashreplace"))
