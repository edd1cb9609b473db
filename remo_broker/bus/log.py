"""One line to the log: standard error, which systemd hands to the journal with the priority that stands in front."""

from __future__ import annotations

import os
import sys

_journal = "JOURNAL_STREAM" in os.environ


def notice(text: str) -> None:
    _say(5, text)


def warning(text: str) -> None:
    _say(4, text)


def _say(priority: int, text: str) -> None:
    for line in text.splitlines():
        print(f"<{priority}>{line}" if _journal else f"remo-broker-bus: {line}", file=sys.stderr, flush=True)
