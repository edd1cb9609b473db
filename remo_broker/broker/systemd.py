"""What systemd passes to the broker and what the broker reports to systemd: listening sockets,
readiness, status, watchdog, the descriptor store.

Outside systemd every call here does nothing, and systemd-python is not even imported.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Names of descriptors (`FileDescriptorName=` of the socket units).
ADMIN = "admin"
STATUS = "status"
CREDENTIALS = "credentials"
# A stored connection of that socket; followed by a hyphen and its own name.
CREDENTIAL = "credential"
# Followed by a hyphen and the project's name.
PROJECT_KINDS = ("client", "mount")
# Delay before trying again when the manager's queue was full.
RETRY_SECONDS = 0.1
# The manager's queue is full, or the kernel has no memory.
_BUSY = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


class MissingLibrary(Exception):
    """systemd started the broker, but systemd-python cannot be imported."""


def under_systemd() -> bool:
    return "NOTIFY_SOCKET" in os.environ or "LISTEN_FDS" in os.environ


def handed_over() -> Iterator[tuple[str, int]]:
    """Name and number of each inherited descriptor. Raises `MissingLibrary`."""
    if "LISTEN_FDS" not in os.environ:
        return
    try:
        # The C module under `systemd.daemon`, which would import `socket` for a default.
        from systemd._daemon import LISTEN_FDS_START, _listen_fds_with_names
    except ImportError:
        raise MissingLibrary(
            "sockets were handed over, but the module systemd (package systemd-python) cannot be imported; install it"
        ) from None
    unset_environment = True
    _, *names = _listen_fds_with_names(unset_environment)
    for descriptor, name in enumerate(names, LISTEN_FDS_START):
        yield name, descriptor


def listening_socket(descriptor: int) -> _socket.socket | None:
    """`descriptor` as a listening Unix stream socket. If it is anything else, closes it and returns
    None."""
    try:
        candidate = _socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if (
        candidate.family != _socket.AF_UNIX
        or candidate.type != _socket.SOCK_STREAM
        or not candidate.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
    ):
        candidate.close()
        return None
    os.set_inheritable(descriptor, False)
    candidate.setblocking(False)
    return candidate


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


class Manager:
    """The service manager.

    sd_notify(3) blocks when the manager's queue is full, and all clients of the broker would wait
    with it: for seconds while many units are reloaded, and after ten messages in a container.
    Messages that are not accepted at once are queued here, and sent when `later` calls back.
    """

    def __init__(self) -> None:
        self._watchdog_seconds = 0.0
        """The watchdog timeout: the longest interval between two `WATCHDOG=1`; 0 for no
        watchdog."""
        self.later: Callable[[float, Callable[[], None]], object] = lambda _seconds, _call: None
        """The loop's `after`, once there is one."""
        self._unsent: list[tuple[str, int | None, int | None]] = []
        """Unsent messages in order, each with its descriptor, if any, and again if it is a copy, to
        be closed."""
        self._due = False
        self._room: tuple[_socket.socket, select.poll] | None = None
        """Shows whether the manager's queue is full; see `has_room`."""
        self._socket: _socket.socket | None = None
        path = os.environ.get("NOTIFY_SOCKET")
        if path is None:
            return
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._watchdog_seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6

    def ready(self, status: str) -> None:
        self._notify(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        self._notify("RELOADING=1")

    def status(self, status: str) -> None:
        self._forget("STATUS=")
        self._notify(f"STATUS={status}")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def feed_watchdog(self) -> None:
        """Send `WATCHDOG=1` now and twice per timeout, as sd_watchdog_enabled(3) recommends, if
        there is a watchdog."""
        if self._watchdog_seconds:
            self._forget("WATCHDOG=")
            self._notify("WATCHDOG=1")
            self.later(self._watchdog_seconds / 2, self.feed_watchdog)

    def keep(self, kind: str, project: str, descriptor: int) -> None:
        """Have systemd keep a listener across restarts of the broker. The caller may close it even
        before the message is sent."""
        if self._socket is not None:
            try:
                copy = os.dup(descriptor)
            except OSError:
                return  # no free descriptor: served now, made again after a restart
            self._notify(f"FDSTORE=1\nFDNAME={kind}-{project}", copy, copy)

    def hold(self, kind: str, name: str, descriptor: int) -> None:
        """Have systemd keep a connection. The caller drops it when it closes it."""
        self._notify(f"FDSTORE=1\nFDNAME={kind}-{name}", descriptor)

    def drop(self, kind: str, project: str) -> None:
        """Have systemd drop it again."""
        self._forget(f"FDSTORE=1\nFDNAME={kind}-{project}", whole=True)
        self._notify(f"FDSTOREREMOVE=1\nFDNAME={kind}-{project}")

    @property
    def is_there(self) -> bool:
        """Whether a manager keeps listeners across a restart."""
        return self._socket is not None

    @property
    def lacks_listeners(self) -> bool:
        """Whether listeners are still queued for the manager: an exit would lose them."""
        return any(descriptor is not None for _, descriptor, _ in self._unsent)

    def has_room(self) -> bool:
        """Whether the manager would accept a message now. Another process may be faster, so a
        message sent next may still have to wait."""
        if self._socket is None:
            return True
        if self._unsent:
            return False
        if self._room is None:
            # poll(2) looks at the queue at the other end only if the socket is connected. What is
            # sent goes through the other socket, so that it reaches a manager that has bound the
            # address again.
            connected = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                connected.connect(self._address)
            except OSError:
                connected.close()
                return True  # no process receives messages, so none waits
            poll = select.poll()
            poll.register(connected, select.POLLOUT)
            poll.register(self._socket, select.POLLOUT)
            self._room = connected, poll
        _, poll = self._room
        return sum(bool(events & select.POLLOUT) for _, events in poll.poll(0)) == 2

    def _notify(self, state: str, descriptor: int | None = None, copy: int | None = None) -> None:
        if self._socket is not None:
            self._unsent.append((state, descriptor, copy))
            self._send()

    def _forget(self, state: str, *, whole: bool = False) -> None:
        """Drop unsent messages that begin with `state`, or equal it if `whole`: a newer one
        follows."""
        kept = []
        for one in self._unsent:
            if one[0] == state if whole else one[0].startswith(state):
                _close(one[2])
            else:
                kept.append(one)
        self._unsent = kept

    def _send(self) -> None:
        """Send as much as the manager accepts, the rest later."""
        assert self._socket is not None
        waiting = 0
        while waiting < len(self._unsent):
            state, descriptor, copy = self._unsent[waiting]
            if waiting and descriptor is not None:
                waiting += 1
                continue
            rights = (
                [] if descriptor is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", descriptor))]
            )
            try:
                self._socket.sendmsg([state.encode()], rights, 0, self._address)
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    # Others with this uid, perhaps in a container, can keep it so. What passes no
                    # descriptor goes on: without WATCHDOG=1, systemd would kill the broker.
                    waiting += 1
                    continue
                if error.errno in _BUSY:
                    waiting = len(self._unsent)
                    break
                # A manager that does not receive must not keep the broker from serving or exiting.
            del self._unsent[waiting]
            _close(copy)
        if waiting and not self._due:
            self._due = True
            self.later(RETRY_SECONDS, self._send_later)

    def _send_later(self) -> None:
        self._due = False
        self._send()

    def close(self) -> None:
        """Discard unsent messages."""
        for _, _, copy in self._unsent:
            _close(copy)
        self._unsent.clear()
        if self._room is not None:
            self._room[0].close()
            self._room = None
        if self._socket is not None:
            self._socket.close()
