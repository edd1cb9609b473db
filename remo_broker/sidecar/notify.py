"""Messages to systemd and the log."""

from __future__ import annotations

import os
import socket

from remo_broker.cli.program import report
from remo_broker.cli.text import escaped

INFO, WARNING, ERROR = 6, 4, 3
# How soon to retry a manager whose queue was full.
RETRY_SECONDS = 0.1


class Notifier:
    """The service manager, if there is one.

    While its queue is full, as on a reload of many units, only the last status is kept: the sidecar
    never waits for the manager.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._ready = False
        self._status = ""
        self.waiting = False
        """Whether `send` must be called again."""

    def status(self, text: str) -> None:
        """Send `STATUS=`; also `READY=1` with the first.

        Text of others, such as a file's name, adds no assignment: it stays on its line.
        """
        self._status = escaped(text)
        self.send()

    def send(self) -> None:
        ready = "" if self._ready else "READY=1\n"
        self.waiting = not self._notify(f"{ready}STATUS={self._status}")
        self._ready = self._ready or not self.waiting

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def _notify(self, state: str) -> bool:
        if not self._address:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(state.encode(), self._address)
            except BlockingIOError:
                return False
            except OSError:
                pass  # no manager is listening
        return True


def log(priority: int, text: str) -> None:
    """Write a line to standard error, with its priority if that is the journal."""
    report(f"<{priority}>{text}" if "JOURNAL_STREAM" in os.environ else f"remo-sidecar: {text}")
