"""`exec --watch` and `render --watch`: follow a command's secrets without polling.

The command is a child in the same process group and on the same terminal. Signals to the group,
such as a terminal's, reach both processes; those to this process alone are forwarded to the
command.
When the command stops or exits, so does this process, in the same way: a shell or a service manager
cannot tell the difference.

A thread follows the broker and fetches, so that no signal waits for an answer.
"""

from __future__ import annotations

import _thread
import os
import resource
import signal
import sys
import time

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem, report
from remo_broker.client.errors import ClientError, Denied, NotFound, PeerUnexpected
from remo_broker.client.value import SecretValue
from remo_broker.protocol.clock import monotonic
from remo_broker.secret.bindings import Bound
from remo_broker.secret.commands import DEFAULT_GRACE_SECONDS
from remo_broker.secret.process_group import GroupMember
from remo_broker.secret.programs import start
from remo_broker.secret.project_socket import open_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from remo_broker.protocol.replies import ProjectState

    Fetched: TypeAlias = tuple[Bound, dict[str, SecretValue]]
    Fetch: TypeAlias = Callable[[], Fetched]
    Prepare: TypeAlias = Callable[[Bound, dict[str, SecretValue]], dict[bytes, bytes]]

# Not forwarded: two that no process can wait for, and those that this process itself may raise.
KEPT = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
}
HANDLED = set(signal.valid_signals()) - KEPT
# One of these during a restart is meant to end the command.
ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
# Those of them after which a change does not start it again: for many programs, SIGHUP is "reload".
ENDING_FOR_GOOD = ENDING - {signal.SIGHUP}
# What the terminal stops its processes with.
STOPPING = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
# Sent by the thread that follows the broker.
CHANGED = signal.SIGRTMIN
# How long to wait before reconnecting: a broker restarts in a fraction of a second.
RECONNECT_SECONDS = 0.2


class LastFetch:
    """The last fetch, and whether a new one differs."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.current = fetch()

    def is_of(self, state: ProjectState) -> bool:
        """Whether the last fetch was answered from this snapshot."""
        return all(secret.generation == state.generation for secret in self.current[1].values())

    def refresh(self) -> bool:
        """Fetch again, and again while the broker is down; return whether anything changed.

        If the broker refuses, keep the old secrets.
        """
        while True:
            try:
                bound, secrets = self._fetch()
                break
            except PeerUnexpected:
                raise
            except (Problem, Denied, NotFound) as error:
                report(f"remo-secret: the secrets changed and are not used: {error}")
                return False
            except ClientError:
                time.sleep(RECONNECT_SECONDS)
        before, self.current = self.current, (bound, secrets)
        return differ(before, self.current)


def differ(one: Fetched, other: Fetched) -> bool:
    """Whether two fetches have other bindings or values."""
    values, others = ({name: secret.reveal_bytes() for name, secret in secrets.items()} for _, secrets in (one, other))
    return values != others or one[0].bindings != other[0].bindings


def follow(arguments: Arguments, watched: LastFetch, changed: Callable[[], None]) -> None:
    """Call `changed` at each change of what is watched, forever; reconnect when the broker
    restarts."""
    known: tuple[int, int] | None = None
    while True:
        try:
            with open_client(arguments) as client:
                for state in client.watch():
                    current = (state.start_usec, state.generation)
                    is_news = not watched.is_of(state) if known is None else current != known or state.event is not None
                    known = current
                    if is_news and state.ready and watched.refresh():
                        changed()
        except PeerUnexpected:
            raise
        except (ClientError, Problem):
            pass
        time.sleep(RECONNECT_SECONDS)


def run_watched(
    program: str,
    command: list[str],
    fetch: Fetch,
    prepare: Prepare,
    arguments: Arguments,
    restart_signal: signal.Signals,
    grace_seconds: int,
    keep: bool,
) -> int:
    """Run the command; when one of its secrets changes, restart it or only send the signal."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, no exit status is kept
    group = GroupMember()
    watched = LastFetch(fetch)
    in_use = watched.current
    environment = prepare(*in_use)
    job = WatchedJob(program, command, group, signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED))
    job.start(environment)
    main = _thread.get_ident()
    _thread.start_new_thread(_follow, (arguments, watched, lambda: signal.pthread_kill(main, CHANGED)))
    while True:
        found = job.next_signal()
        if found is None:
            os.kill(job.child, signal.SIGKILL)
        elif found.si_signo == signal.SIGCHLD:
            status = job.poll_status()
            if status is None:
                continue
            if job.next_environment is None or job.was_told_to_end(grace_seconds):
                return _end_like(status)
            job.start(job.next_environment)
        elif found.si_signo == CHANGED and found.si_pid == os.getpid():
            latest = watched.current
            if not differ(latest, in_use):
                continue  # some that could not be used came in between
            try:
                environment = prepare(*latest)
            except Problem as error:
                report(f"remo-secret: the secrets changed and are not used: {error}")
                continue
            in_use = latest
            if keep:
                os.kill(job.child, restart_signal)
            else:
                job.restart(environment, restart_signal, grace_seconds)
        else:
            job.forward(found)


def _follow(arguments: Arguments, watched: LastFetch, changed: Callable[[], None]) -> None:
    """`follow` in a thread: the command runs on when it fails."""
    try:
        follow(arguments, watched, changed)
    except Exception as error:  # noqa: BLE001 - its text may hold a value, unless it is one of ours
        why = str(error) if isinstance(error, ClientError) else type(error).__name__
        report(f"remo-secret: no longer following the secrets: {why}")


class WatchedJob:
    """The command as a child: restarted, stopped and ended as the signals say."""

    def __init__(self, program: str, command: list[str], group: GroupMember, inherited: set[int]) -> None:
        self._program = program
        self._command = command
        self._group = group
        self._inherited = inherited
        self._deadline: float | None = None
        self._stopped = False
        self._told_to_end: float | None = None
        self.child = 0
        self.next_environment: dict[bytes, bytes] | None = None

    def start(self, environment: dict[bytes, bytes]) -> None:
        self._deadline = self.next_environment = self._told_to_end = None
        self.child = start(self._program, self._command, environment, self._inherited)

    def restart(self, environment: dict[bytes, bytes], number: signal.Signals, grace_seconds: int) -> None:
        """Ask the command to end; when it has ended, it is to be started with `environment`."""
        self.next_environment = environment
        if self._deadline is None:
            self._deadline = monotonic() + grace_seconds
            os.kill(self.child, number)

    def was_told_to_end(self, grace_seconds: int) -> bool:
        """Whether the command was just signalled to end: a change while it ends does not start
        it again.
        """
        window = max(grace_seconds, DEFAULT_GRACE_SECONDS)
        return self._told_to_end is not None and monotonic() - self._told_to_end < window

    def next_signal(self) -> signal.struct_siginfo | None:
        """The next signal; None when a restart has waited for the command long enough."""
        if self._deadline is None:
            return signal.sigwaitinfo(HANDLED)
        found = signal.sigtimedwait(HANDLED, max(0.0, self._deadline - monotonic()))
        if found is None:
            self._deadline = monotonic() + RECONNECT_SECONDS  # it is dying, and may take a moment
        return found

    def forward(self, found: signal.struct_siginfo) -> None:
        """Send the command a signal that this process got, unless it has got it too."""
        number = found.si_signo
        if number in ENDING:
            self.next_environment = None
        if number in ENDING_FOR_GOOD:
            self._told_to_end = monotonic()
        has_it = self._group.was_sent(number) and os.getpgid(self.child) == os.getpgrp()
        if number == signal.SIGCONT and self._stopped:
            self._stopped = False
            # Stopped again before this process got here, it stays so.
            has_it = not _is_stopped(self.child) or not STOPPING.isdisjoint(signal.sigpending())
        if not has_it:
            os.kill(self.child, number)

    def poll_status(self) -> int | None:
        """The status of the command if it has exited. If it has stopped, stop this process too.

        Also reaps other children: the first process in a container inherits orphans.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid != self.child:
                continue
            if not os.WIFSTOPPED(status):
                return status
            self._stopped = True
            if signal.SIGCONT not in signal.sigpending():  # otherwise this process has been continued since
                _stop_like(os.WSTOPSIG(status))


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"


def _stop_like(number: int) -> None:
    """Stop this process by the signal that stopped the command, which a shell shows."""
    if number == signal.SIGSTOP:
        os.kill(os.getpid(), number)
        return
    before = signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # while it is blocked: it merges with the terminal's, which may be pending
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    signal.signal(number, before)


def _end_like(status: int) -> int:
    """Return the child's exit status, or die by the signal that killed it."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    sys.stdout.flush()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process holds secrets
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number  # the first process of a container does not die by a signal of its own
