"""`remo-sidecar run`: keep the broker supplied.

One process with one thread. It waits for the broker, for changes to the sources' files, for signals
and for timers. On any of these it reads all sources and pushes them in one step.
"""

from __future__ import annotations

import os
import select
import signal
import time

from remo_broker.cli.program import Problem
from remo_broker.client.admin import AdminClient
from remo_broker.client.errors import ClientError
from remo_broker.protocol.clock import boot_seconds
from remo_broker.protocol.hardening import execute_again, forbid_dumps
from remo_broker.protocol.names import counted
from remo_broker.protocol.replies import CLEARED, Pushed
from remo_broker.sidecar import configuration
from remo_broker.sidecar.broker_watch import SILENCE_SECONDS, BrokerWatch
from remo_broker.sidecar.filesystems import remote
from remo_broker.sidecar.notify import ERROR, INFO, WARNING, Notifier, log
from remo_broker.sidecar.notify import RETRY_SECONDS as MANAGER_SECONDS
from remo_broker.sidecar.push import request_for, socket_path
from remo_broker.sidecar.source_watch import SourceWatch
from remo_broker.sidecar.sources import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from remo_broker.cli.options import Arguments
    from remo_broker.protocol.replies import StoreState
    from remo_broker.sidecar.sources import Reading

# Delay before retrying after a failure, doubled each time.
RETRY_SECONDS = (1.0, 60.0)
# The same if no process listens on the socket. A broker without systemd is back within a second.
CONNECT_RETRY_SECONDS = (0.1, 1.0)
# How long a broker may take to answer before it is reported, and the boot goes on without it.
ANSWER_SECONDS = 5.0
NEVER = float("inf")

START, CHANGE, REFRESH, SIGNAL, BROKER = "start", "change", "refresh", "signal", "broker"


class Stopped(BaseException):
    """SIGTERM or SIGINT: ends what is running, even a command that hangs."""


def run(arguments: Arguments) -> int:
    execute_again()
    forbid_dumps()
    manager = Notifier()
    try:
        Supplier(arguments, manager).run()
    except Stopped:
        manager.stopping()
    return 0


class Supplier:
    """The pending work, and what is known about the broker."""

    def __init__(self, arguments: Arguments, manager: Notifier) -> None:
        self._arguments = arguments
        self._manager = manager
        self._path = socket_path(arguments)
        self._sources = configuration.read(arguments)
        self._watched = SourceWatch()
        self._wakeup = _catch_signals(self._on_hangup)
        self._hangup = False
        self._last_error = ""
        self._no_broker = ""
        """Why the broker cannot be reached, or does not answer."""
        # Why the sources are to be read, and the earliest time for it.
        self._cause = START
        self._due = 0.0
        self._retry = RETRY_SECONDS[0]
        self._refresh_at = NEVER
        # The broker: its identity, by its start time, and whether it holds the last push.
        self._link: BrokerWatch | None = None
        self._connect_at = 0.0
        self._connect_retry = CONNECT_RETRY_SECONDS[0]
        self._heard_at = 0.0
        self._answer_by = NEVER
        """When a connected broker that has not answered is reported."""
        self._start_usec = 0
        self._generation = 0
        """Generation of our last push to this broker; 0 for none."""
        self._held = False
        self._yields_to = ""
        """How another client changed the store since.

        Its change stays until a source changes or we are asked to push.
        """
        self._digest: int | None = None
        """Hash of the last push. Python's own hash has a random key, so it reveals nothing."""
        self._last_push = ""
        self._failures: list[str] = []
        """The labels of the sources that failed; empty for the push itself."""

    # --- the loop

    def run(self) -> None:
        self._warn_of_remote()
        while True:
            if self._link is None and boot_seconds() >= self._connect_at:
                self._connect()
            if boot_seconds() >= self._refresh_at:
                self._refresh_at = NEVER
                if not self._yields_to:
                    self._want(REFRESH)
            if self._watched.due <= boot_seconds():
                self._watched.taken()
                self._want(CHANGE)
            if self._cause and self._start_usec and self._link is not None and boot_seconds() >= self._due:
                self._supply()
            else:
                self._wait()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self._watched.descriptor is not None:
            poll.register(self._watched.descriptor, select.POLLIN)
        until = min(self._refresh_at, self._watched.due)
        if self._link is not None:
            poll.register(self._link.descriptor, select.POLLIN)
            until = min(until, self._heard_at + SILENCE_SECONDS, self._answer_by)
            until = min(until, self._due if self._cause and self._start_usec else NEVER)
        else:
            until = min(until, self._connect_at)
        if self._manager.waiting:
            until = min(until, boot_seconds() + MANAGER_SECONDS)
        timeout = None if until == NEVER else max(0, int((until - boot_seconds()) * 1000) + 1)
        ready = {descriptor for descriptor, _ in poll.poll(timeout)}
        if self._manager.waiting:
            self._manager.send()
        if self._wakeup in ready:
            os.read(self._wakeup, 64)
        if self._hangup:
            self._hangup = False
            self._reload()
        if self._watched.descriptor in ready:
            self._watched.read()
        if self._link is not None and self._link.descriptor in ready:
            self._hear(self._link)
        elif self._link is not None and boot_seconds() >= self._heard_at + SILENCE_SECONDS:
            self._unlink(f"nothing heard from the broker for {SILENCE_SECONDS:g} s")
        elif self._link is not None and boot_seconds() >= self._answer_by:
            self._answer_by = NEVER
            self._no_broker = f"{self._path}: connected, but the broker does not answer"
            self._log_failure(self._no_broker)
            self._update_status()

    def _want(self, cause: str) -> None:
        self._cause = cause
        self._due = 0.0

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hangup = True

    def _reload(self) -> None:
        try:
            self._sources = configuration.read(self._arguments)
        except Problem as problem:
            log(ERROR, f"the configuration in force stays: {problem}")
        else:
            self._warn_of_remote()
        self._failures.clear()
        self._retry = RETRY_SECONDS[0]
        self._want(SIGNAL)

    def _warn_of_remote(self) -> None:
        for source in self._sources:
            kinds = {kind for path in source.watched if (kind := remote(path))}
            if kinds and not source.refresh_seconds:
                log(
                    WARNING,
                    f"{source.label}: on {', '.join(sorted(kinds))}, where changes may go unseen; set refresh_seconds",
                )

    # --- the broker

    def _connect(self) -> None:
        try:
            self._link = BrokerWatch(self._path)
        except ClientError as error:
            self._unlink(str(error))
            return
        self._heard_at = boot_seconds()
        self._answer_by = self._heard_at + ANSWER_SECONDS

    def _hear(self, link: BrokerWatch) -> None:
        try:
            states = link.read()
        except ClientError as error:
            self._unlink(str(error) if not self._start_usec else "")
            return
        self._heard_at = boot_seconds()
        self._answer_by = NEVER
        self._connect_retry = CONNECT_RETRY_SECONDS[0]
        if self._no_broker:
            self._no_broker = ""
            if not self._failures:
                self._last_error = ""
            self._update_status()
        for state in states:
            self._learn(state)

    def _unlink(self, why: str) -> None:
        """The broker is unreachable or has gone: connect again, at once if it was there."""
        was_there = self._link is not None and self._start_usec and not why
        if self._link is not None:
            self._link.close()
            self._link = None
        if was_there and self._connect_retry == CONNECT_RETRY_SECONDS[0]:
            self._connect_at = 0.0
            self._connect_retry *= 2
            return
        self._connect_at = boot_seconds() + self._connect_retry
        self._connect_retry = min(self._connect_retry * 2, CONNECT_RETRY_SECONDS[1])
        self._no_broker = why
        if why:
            self._log_failure(why)
        self._update_status()

    def _learn(self, state: StoreState) -> None:
        if state.start_usec != self._start_usec:
            again = self._start_usec != 0
            self._start_usec = state.start_usec
            self._generation, self._held, self._yields_to = 0, False, ""
            self._retry = RETRY_SECONDS[0]
            if again or not self._cause:
                self._want(BROKER)
            return
        ours = self._generation != 0 and state.generation <= self._generation
        if ours and (state.secrets_loaded_usec or state.generation < self._generation):
            return
        if not self._generation and state.event is None:
            return
        # An operator's act; a pending push would undo it.
        what = "clear" if state.event == CLEARED or not state.secrets_loaded_usec else "push"
        if not self._yields_to:
            log(INFO, f"another process's {what} has replaced the secrets; waiting for a source to change, or SIGHUP")
        self._held, self._yields_to = False, what
        if self._cause != SIGNAL:
            self._cause = ""
        self._update_status()

    # --- supplying

    def _supply(self) -> None:
        cause = self._cause
        self._watched.follow([path for source in self._sources for path in source.watched])
        reading = read_all(self._sources, own_session=True)
        refresh: list[float] = [source.refresh_seconds for source in self._sources if source.refresh_seconds]
        if self._watched.poll_seconds is not None:
            refresh.append(self._watched.poll_seconds)
        self._refresh_at = boot_seconds() + min(refresh) if refresh else NEVER
        pushed = False
        try:
            pushed = self._push(reading, cause)
        except (Problem, ClientError) as error:
            self._failed(error, reading)
        else:
            self._failures.clear()
            self._last_error = ""
            self._cause = ""
            self._retry = RETRY_SECONDS[0]
        # A command that modifies a path it is watched by would run over and over.
        self._watched.rest(futile=cause == CHANGE and not pushed)
        self._update_status()

    def _push(self, reading: Reading, cause: str) -> bool:
        """Push what was read, unless the broker has it. Raises `Problem` and `ClientError`."""
        if reading.failure is not None:
            raise reading.failure
        request, digest = request_for(reading.secrets)
        yielded_to = self._yields_to
        self._catch_up()
        if self._yields_to and not yielded_to and cause != SIGNAL:
            return False  # an operator acted while the sources were read
        if digest == self._digest and (self._held or (self._yields_to and cause == CHANGE)):
            return False
        with AdminClient(self._path) as client:
            pushed = client.ask(request, Pushed)
        self._digest, self._generation = digest, pushed.generation
        self._held, self._yields_to = True, ""
        self._last_push = (
            f"{counted(pushed.secret_count, 'secret')}, generation {pushed.generation}, "
            f"at {time.strftime('%Y-%m-%d %H:%M:%S')}"
        )
        log(INFO, f"pushed {counted(pushed.secret_count, 'secret')}; generation {pushed.generation}")
        return True

    def _catch_up(self) -> None:
        """Learn what has happened at the broker while the sources were read."""
        link = self._link
        if link is not None and select.select([link.descriptor], [], [], 0)[0]:
            self._hear(link)

    def _failed(self, error: Exception, reading: Reading) -> None:
        self._due = boot_seconds() + self._retry
        self._retry = min(self._retry * 2, RETRY_SECONDS[1])
        failures: dict[str, Exception] = dict(reading.failures) or {"": error}
        self._failures = list(failures)
        self._log_failure("; ".join(_failure_text(one) for one in failures.values()))

    def _log_failure(self, text: str) -> None:
        """Log an error once, until it changes."""
        if text != self._last_error:
            self._last_error = text
            log(ERROR, text)

    # --- what systemd shows

    def _update_status(self) -> None:
        """Send `STATUS=`; and `READY=1` after the first try.

        Success or not: a vault that is down must not delay the boot. Every user of the host can read
        it, so it has no error's text, which may name secrets; the log has that.
        """
        parts = [f"Last push: {self._last_push}" if self._last_push else "Nothing pushed yet"]
        if self._yields_to:
            parts.append(f"replaced by another process's {self._yields_to}")
        if self._link is None:
            parts.append(f"no broker: {self._no_broker}" if self._no_broker else "no broker")
        elif self._no_broker:
            parts.append(self._no_broker)
        if self._failures:
            parts.append(f"failed: {', '.join(label or 'the push' for label in self._failures)}; the log says why")
            parts.append(f"next try within {max(1, int(self._due - boot_seconds() + 0.5))} s")
        fine = [source.label for source in self._sources if source.label not in self._failures]
        if fine and self._generation + len(self._failures):
            parts.append(f"fine: {', '.join(fine)}")
        self._manager.status("; ".join(parts))


def _failure_text(error: Exception) -> str:
    hint = getattr(error, "hint", None)
    return f"{error} ({hint})" if hint else str(error)


def _catch_signals(on_hangup: signal._HANDLER) -> int:
    """The descriptor that becomes readable on each signal."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGHUP, on_hangup)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return read_end
