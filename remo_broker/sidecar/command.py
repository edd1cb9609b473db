"""Run a source's command: its standard output is the secrets; its standard error is inherited."""

from __future__ import annotations

import os
import select
import signal
import subprocess

from remo_broker.cli.program import Problem
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from remo_broker.protocol.shared_limits import MAX_PUSH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

READ_SIZE = 64 * 1024
# Variables that systemd sets for this process only, and allocator settings that would slow down
# other programs.
NOT_PASSED_ON = frozenset(
    {
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        *MEMORY_ENVIRONMENT,
    }
)


def output_of(argv: Sequence[str], label: str, timeout_seconds: int, *, own_session: bool) -> bytes:
    """The command's output, at most as much as a push takes. Raises `Problem`.

    With `own_session`, a timeout kills everything that the command started. A command that asks on
    the terminal must stay in the terminal's session.
    """
    environment = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, start_new_session=own_session
        )
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "cannot be executed"
        raise Problem(f"{label}: {argv[0]}: {why}", hint="give the path of an executable program") from None
    deadline = monotonic() + timeout_seconds
    try:
        content, status = _read(process, deadline, label), 0
        if content is not None:
            try:
                status = process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                content = None
    finally:
        # Also if this process is being stopped.
        _kill(process, own_session=own_session)
    if content is None:
        raise Problem(
            f"{label}: timed out after {timeout_seconds} s and was killed",
            hint="see why it hangs, or raise timeout_seconds",
        )
    if status < 0:
        raise Problem(f"{label}: killed by {signal.Signals(-status).name}", hint="run the command by hand")
    if status:
        raise Problem(
            f"{label}: exit status {status}", hint="run the command by hand; its standard error is in the log"
        )
    return content


def _read(process: subprocess.Popen[bytes], deadline: float, label: str) -> bytes | None:
    """Everything up to the end of its standard output; None if the deadline passes first."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    content = bytearray()
    while (left := deadline - monotonic()) > 0:
        if not poll.poll(left * 1000):
            break
        piece = os.read(descriptor, READ_SIZE)
        if not piece:
            return bytes(content)
        content += piece
        if len(content) > MAX_PUSH:
            raise Problem(
                f"{label}: prints more than {MAX_PUSH} bytes, the limit of a push",
                hint="have the command print only the secrets that projects use",
            )
    return None


def _kill(process: subprocess.Popen[bytes], *, own_session: bool) -> None:
    assert process.stdout is not None
    process.stdout.close()
    # Not reaped yet: its group is still its own, even if it has exited and only a child is left.
    if process.returncode is None:
        try:
            if own_session:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except ProcessLookupError:
            pass
        process.wait()
