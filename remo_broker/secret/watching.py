"""`exec --watch` and `render --watch`: follow the secrets that a command uses, without polling.

The command is a child in the same process group and on the same terminal. Signals that the terminal sends reach both
processes; those that somebody sends to this process are passed on. When the command stops or ends, so does this process,
in the same way: a shell or a service manager cannot tell the difference.
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
from remo_broker.secret.become import start
from remo_broker.secret.bindings import Bound
from remo_broker.secret.locate import open_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Fetch: TypeAlias = Callable[[], tuple[Bound, dict[str, SecretValue]]]

# Passed on to the command unless the terminal sent them. SIGTSTP and SIGCHLD have cases of their own.
FORWARDED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP),
)
# From the thread that watches the broker.
CHANGED = signal.SIGRTMIN
HANDLED = {*FORWARDED, signal.SIGCHLD, CHANGED}
# si_code of signals that the kernel sends, as it does for keys typed on a terminal; the signal module lacks it.
SI_KERNEL = 0x80
# How long to wait before connecting again: a broker that restarts is back in a fraction of a second.
RECONNECT_SECONDS = 0.2


class Watched:
    """What was fetched last, and whether a new fetch says something else."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.bound, self.secrets = fetch()

    def refresh(self) -> bool:
        """Fetch again; whether anything has changed. What cannot be fetched leaves everything as it is."""
        try:
            bound, secrets = self._fetch()
        except (Problem, Denied, NotFound) as error:
            report(f"remo-secret: the secrets changed and are not used: {error}")
            return False
        except ClientError:
            return False  # the broker is gone again; the watch will tell
        before = {name: secret.reveal_bytes() for name, secret in self.secrets.items()}
        changed = before != {name: secret.reveal_bytes() for name, secret in secrets.items()}
        changed = changed or bound.bindings != self.bound.bindings
        self.bound, self.secrets = bound, secrets
        return changed


def follow(arguments: Arguments, changed: Callable[[], None]) -> None:
    """Call `changed` at each change that concerns the project, for ever; connects again when the broker restarts."""
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
    """Run the command and restart it, or only send it the signal, when a secret that it uses changes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    watched = Watched(fetch)
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
    """The status of a child that has ended. Stops this process as well if the child has stopped."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if not os.WIFSTOPPED(status):
            return status
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(child, signal.SIGCONT)


def _wait_for(child: int, seconds: int) -> bool:
    """Wait until the child ends, `seconds` at most; whether it did."""
    deadline = time.monotonic() + seconds
    while True:
        pid, _ = os.waitpid(child, os.WNOHANG)
        if pid:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _end_like(status: int) -> int:
    """The child's exit status; or end by the signal that ended it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        sys.stdout.flush()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process holds secrets
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)
