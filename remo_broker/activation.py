"""What systemd hands over and is told: listening sockets, readiness, status, watchdog, the descriptor store.

Outside systemd every call here does nothing, and systemd-python is not even imported.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Names of descriptors (`FileDescriptorName=` of the socket units).
ADMIN = "admin"
STATUS = "status"
CLIENT_PREFIX = "client-"


class MissingLibrary(Exception):
    """systemd started the broker, but systemd-python cannot be imported."""


def under_systemd() -> bool:
    return "NOTIFY_SOCKET" in os.environ or "LISTEN_FDS" in os.environ


def handed_over() -> Iterator[tuple[str, int]]:
    """Name and number of each descriptor that was passed on. Raises `MissingLibrary`."""
    if "LISTEN_FDS" not in os.environ:
        return
    try:
        from systemd.daemon import listen_fds_with_names
    except ImportError:
        raise MissingLibrary(
            "sockets were handed over, but the module systemd (package systemd-python) cannot be imported; install it"
        ) from None
    for descriptor, name in listen_fds_with_names().items():
        yield name, descriptor


def listening_socket(descriptor: int) -> socket.socket | None:
    """The listening Unix stream socket that `descriptor` is, or None, closed, when it is anything else."""
    try:
        candidate = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if (
        candidate.family != socket.AF_UNIX
        or candidate.type != socket.SOCK_STREAM
        or not candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        candidate.close()
        return None
    os.set_inheritable(descriptor, False)
    candidate.setblocking(False)
    return candidate


class Manager:
    """The service manager, as far as it wants to hear from the broker."""

    def __init__(self) -> None:
        self._notify = None
        self.watchdog_seconds = 0.0
        """How often it wants to hear `WATCHDOG=1` at the least; 0 for never."""
        if "NOTIFY_SOCKET" not in os.environ:
            return
        try:
            from systemd.daemon import notify
        except ImportError:
            raise MissingLibrary(
                "a service manager wants to be notified, but the module systemd (package systemd-python) cannot be "
                "imported; install it"
            ) from None
        self._notify = notify
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog_seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        self._tell("RELOADING=1")

    def status(self, status: str) -> None:
        self._tell(f"STATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def keep(self, project: str, descriptor: int) -> None:
        """Have systemd keep a listener over restarts of the broker."""
        self._tell(f"FDSTORE=1\nFDNAME={CLIENT_PREFIX}{project}", [descriptor])

    def drop(self, project: str) -> None:
        """Have systemd forget it again."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={CLIENT_PREFIX}{project}")

    def _tell(self, state: str, descriptors: list[int] | None = None) -> None:
        if self._notify is None:
            return
        try:
            # fds must be a list or left out: systemd-python 235 does not take None.
            if descriptors is None:
                self._notify(state)
            else:
                self._notify(state, fds=descriptors)
        except OSError:
            pass  # a manager that does not listen, or not now, keeps nobody from being served, nor the broker from ending
