"""Tell a signal sent to this process alone from one sent to its whole process group.

A signal's siginfo does not say which it was. So a child process stays in the group with all signals
blocked: what is pending there was sent to the group. The kernel signals the newest member of a
group first, so the child has such a signal before this process does.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from remo_broker.protocol.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# How long the member waits for the signal: a service manager signals the processes of a control
# group one after the other, the main process first.
ARRIVAL_SECONDS = 0.02
# How long to wait for its answer. None comes if the member was stopped or killed.
ANSWER_SECONDS = 0.5


class GroupMember:
    """The child process. Make it before this process holds secrets or has threads."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked = 0
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def was_sent(self, number: int) -> bool:
        """Whether the signal went to the group. False if the member does not answer."""
        self._asked = (self._asked + 1) % 256
        try:
            self._socket.send(bytes([self._asked, number]))
            deadline = monotonic() + ANSWER_SECONDS
            while select.select([self._socket], [], [], max(0.0, deadline - monotonic()))[0]:
                answer = self._socket.recv(2)
                if not answer:
                    return False
                if answer[0] == self._asked:  # else it is to an earlier question
                    return bool(answer[1])
        except OSError:  # it was killed
            return False
        os.kill(self.pid, signal.SIGCONT)
        return False


def _serve(connection: socket.socket) -> NoReturn:
    """Answer until the parent has exited. Never returns into the caller's code."""
    parent = os.getppid()
    try:
        # The caller's files would stay open here: the reader of a pipe would wait for its end.
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor != connection.fileno():
                os.closerange(descriptor, descriptor + 1)
        while question := connection.recv(2):
            number = question[1]
            sent = signal.sigtimedwait({number}, ARRIVAL_SECONDS)
            # A SIGCONT of the parent's own is to this process, see `was_sent`.
            connection.send(bytes([question[0], sent is not None and sent.si_pid != parent]))
    finally:
        os._exit(0)
