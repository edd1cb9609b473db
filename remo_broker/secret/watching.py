"""`exec --watch` and `render --watch`: follow a command's secrets without polling.

The command is a child in the same process group and on the same terminal. Signals from the terminal
reach both processes; signals from other processes are forwarded to the command. When the command
stops or exits, so does this process, in the same way: a shell or a service manager cannot tell the
difference.
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
from remo_broker.secret.become import start
from remo_broker.secret.bindings import Bound
from remo_broker.secret.locate import open_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Fetch: TypeAlias = Callable[[], tuple[Bound, dict[str, SecretValue]]]

# Forwarded to the command unless the terminal sent them. SIGTSTP and SIGCHLD are handled
# separately.
FORWARDED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP),
)
# Sent by the thread that watches the broker.
CHANGED = signal.SIGRTMIN
HANDLED = {*FORWARDED, signal.SIGCHLD, CHANGED}
# si_code of signals from the kernel, such as those for keys typed on a terminal; the signal module
# lacks it.
SI_KERNEL = 0x80
# How long to wait before reconnecting: a broker restarts in a fraction of a second.
RECONNECT_SECONDS = 0.2


class LastFetch:
    """The last fetch, and whether a new one differs."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.bound, self.secrets = fetch()

    def refresh(self) -> bool:
        """Fetch again; return whether anything changed.

        If the fetch fails, keep the old secrets.
        """
        try:
            bound, secrets = self._fetch()
        except (Problem, Denied, NotFound) as error:
            report(f"remo-secret: the secrets changed and are not used: {error}")
            return False
        except ClientError:
            return False  # the broker is down again; the watch reports its return
        before = {name: secret.reveal_bytes() for name, secret in self.secrets.items()}
        changed = before != {name: secret.reveal_bytes() for name, secret in secrets.items()}
        changed = changed or bound.bindings != self.bound.bindings
        self.bound, self.secrets = bound, secrets
        return changed


def follow(arguments: Arguments, changed: Callable[[], None]) -> None:
    """Call `changed` at each change to the project, forever; reconnect when the broker restarts."""
    known: tuple[int, int] | None = None
    while True:
        try:
            with open_client(arguments) as client:
                for state in client.watch():
                    current = (state.start_usec, state.generation)
                    if known is not None and (current != known or state.event is not None) and state.ready:
                        changed()
                    known = current
        except PeerUnexpected:
            raise
        except (ClientError, Problem):
            pass
        time.sleep(RECONNECT_SECONDS)


def run_watched(
    program: str,
    command: list[str],
    fetch: Fetch,
    prepare: Callable[[Bound, dict[str, SecretValue]], dict[bytes, bytes]],
    arguments: Arguments,
    restart_signal: signal.Signals,
    grace_seconds: int,
    keep: bool,
) -> int:
    """Run the command; when one of its secrets changes, restart it or only send the signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    watched = LastFetch(fetch)
    child = start(program, command, prepare(watched.bound, watched.secrets))
    main = _thread.get_ident()
    _thread.start_new_thread(follow, (arguments, lambda: signal.pthread_kill(main, CHANGED)))
    while True:
        found = signal.sigwaitinfo(HANDLED)
        if found.si_signo == CHANGED:
            if watched.refresh():
                environment = prepare(watched.bound, watched.secrets)
                os.kill(child, restart_signal)
                if not keep:
                    ended = _wait_for(child, grace_seconds)
                    if not ended:
                        os.kill(child, signal.SIGKILL)
                        os.waitpid(child, 0)
                    child = start(program, command, environment)
        elif found.si_signo == signal.SIGCHLD:
            status = _look_at(child)
            if status is not None:
                return _end_like(status)
        elif found.si_code != SI_KERNEL:
            os.kill(child, found.si_signo)
            if found.si_signo == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif found.si_signo == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)


def _look_at(child: int) -> int | None:
    """The status of a child that has exited. If the child has stopped, stops this process too."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if not os.WIFSTOPPED(status):
            return status
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(child, signal.SIGCONT)


def _wait_for(child: int, seconds: int) -> bool:
    """Wait up to `seconds` for the child to exit; return whether it did."""
    deadline = monotonic() + seconds
    while True:
        pid, _ = os.waitpid(child, os.WNOHANG)
        if pid:
            return True
        left = deadline - monotonic()
        if left <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _end_like(status: int) -> int:
    """Return the child's exit status, or die by the signal that killed it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        sys.stdout.flush()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process holds secrets
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)
