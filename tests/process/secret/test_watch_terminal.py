"""`exec --watch` on a terminal: an interactive shell sees the same as with env(1)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.support import programs
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.process.secret.conftest import Workspace

WAIT_SECONDS = 30.0
SUSPEND, INTERRUPT, QUIT, END_OF_FILE = "\x1a", "\x03", "\x1c", "\x04"
# Reports that it runs, and works until a signal ends it. A single process: one that is stopped
# between vfork and exec keeps its parent from stopping.
WORK = "sh -c 'echo up; exec sleep 1000'"
# The end of a bash script with traps: waits on a FIFO, without children.
IDLE = "echo up; while :; do read -t 0.05 -u 3; done 3<>idle"


class TerminalSession:
    """A program that leads a session on a terminal of its own."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: pathlib.Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "env", "--default-signal", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            cwd=cwd,
        )
        os.close(slave)
        self._unread = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.master >= 0:
            self.hang_up()
        self.process.kill()
        self.process.wait()

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def expect(self, pattern: str) -> re.Match[str]:
        """Read up to and including the pattern."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := re.search(pattern, self._unread)) is None:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no {pattern} in {self._unread!r}")
            self._unread += os.read(self.master, 65536).decode("utf-8", "replace").replace("\r", "")
        self._unread = self._unread[found.end() :]
        return found


@contextlib.contextmanager
def interactive_shell(project: Workspace) -> Iterator[TerminalSession]:
    env = programs.environment(project.environment | {"TERM": "dumb", "PS1": "", "HISTFILE": ""})
    with TerminalSession(["bash", "--norc", "--noprofile", "--noediting", "-i"], env, project.path) as session:
        session.type("stty -echo; echo rea''dy\n")
        session.expect("ready\n")
        subprocess.run(["mkfifo", project.path / "idle"], check=True)
        try:
            yield session
        finally:
            (project.path / "idle").unlink()


def prefixes() -> dict[str, str]:
    watch = programs.command(programs.SECRET, "exec", "--watch", "--")
    return {"env": "env", "watch": shlex.join(watch)}


def status(session: TerminalSession) -> str:
    """The exit statuses of the last command, one for each part of a pipeline."""
    session.type('echo "status [${PIPESTATUS[@]}]"\n')
    return session.expect(r"status \[(.*)\]\n")[1]


def interrupt(session: TerminalSession, prefix: str) -> object:
    session.type(f"{prefix} {WORK}\n")
    session.expect("up\n")
    session.type(INTERRUPT)
    return status(session)


def quit_it(session: TerminalSession, prefix: str) -> object:
    session.type(f"ulimit -c 0; {prefix} {WORK}\n")
    session.expect("up\n")
    session.type(QUIT)
    return status(session)


def suspend_and_continue(session: TerminalSession, prefix: str) -> object:
    session.type(f"""{prefix} sh -c 'echo up; read line; echo "got $line"; exec sleep 1000'\n""")
    session.expect("up\n")
    session.type(SUSPEND)
    session.expect(r"\[1\]\+  Stopped")
    session.type("jobs -l\n")
    stopped = session.expect(r"\d+ (Stopped(?: \(.*?\))?) ")[1]
    session.type("fg\n")
    session.type("words\n")  # which reach the command when it has the terminal
    session.expect("got words\n")
    session.type(INTERRUPT)
    return stopped, status(session)


def suspend_twice_with_a_handler(session: TerminalSession, prefix: str) -> object:
    """A program restores its screen on SIGCONT: it must get one each time it is continued."""
    script = f'n=0; trap "n=\\$((n+1)); echo continued-\\$n" CONT; {IDLE}'
    session.type(f"{prefix} bash -c '{script}'\n")
    session.expect("up\n")
    seen = []
    for _ in range(2):
        session.type(SUSPEND)
        session.expect("Stopped")
        session.type("fg\n")
        seen.append(session.expect(r"continued-(\d)\n")[1])
    session.type(INTERRUPT)
    return seen, status(session)


def ignore_suspend(session: TerminalSession, prefix: str) -> object:
    session.type(f"""{prefix} sh -c 'trap "" TSTP; echo up; read line; echo "got $line"; exit 7'\n""")
    session.expect("up\n")
    session.type(SUSPEND)
    session.type("words\n")
    return session.expect("got words|Stopped")[0], status(session)


def read_in_the_background(session: TerminalSession, prefix: str) -> object:
    session.type(f"{prefix} cat &\n")
    session.expect(r"\[1\] \d+\n")
    session.type("until jobs -l | grep Stopped; do sleep 0.1; done\n")
    stopped = session.expect(r"\d+ (Stopped(?: \(.*?\))?) ")[1]
    session.type("fg\n")
    session.expect("cat\n")
    session.type("words\n")
    session.expect("words\n")
    session.type(END_OF_FILE)
    return stopped, status(session)


def pipeline(session: TerminalSession, prefix: str) -> object:
    session.type(f"{prefix} {WORK} | cat\n")
    session.expect("up\n")
    session.type(INTERRUPT)
    return status(session)


def foreground(session: TerminalSession, prefix: str) -> object:
    """The command is in the process group that has the terminal."""
    session.type(f"{prefix} sh -c 'ps -o pgid=,tpgid= -p $$; exit 42'\n")
    group, of_terminal = session.expect(r"(\d+) +(\d+)\n").groups()
    return group == of_terminal, status(session)


def terminate(session: TerminalSession, prefix: str) -> object:
    session.type(f"{prefix} {WORK} &\n")
    session.expect("up\n")
    session.type("kill %1; wait %1; echo waited-$?\n")
    return session.expect(r"waited-(\d+)\n")[1]


def resize(session: TerminalSession, prefix: str) -> object:
    session.type(f"""{prefix} bash -c 'trap "stty size; exit 3" WINCH; {IDLE}'\n""")
    session.expect("up\n")
    session.resize(33)
    return session.expect(r"(\d+) 80\n")[1], status(session)


SCENARIOS = [
    *(interrupt, quit_it, suspend_and_continue, suspend_twice_with_a_handler, ignore_suspend, read_in_the_background),
    *(pipeline, foreground, terminate, resize),
]


def test_a_shell_sees_what_it_sees_under_env(project: Workspace) -> None:
    seen = {}
    for name, prefix in prefixes().items():
        with interactive_shell(project) as session:
            seen[name] = {scenario.__name__: scenario(session, prefix) for scenario in SCENARIOS}
    assert seen["watch"] == seen["env"]
    assert seen["env"] == {
        "interrupt": "130",
        "quit_it": "131",
        "suspend_and_continue": ("Stopped", "130"),
        "suspend_twice_with_a_handler": (["1", "2"], "130"),
        "ignore_suspend": ("got words", "7"),
        "read_in_the_background": ("Stopped (tty input)", "0"),
        "pipeline": "130 130",
        "foreground": (True, "42"),
        "terminate": "143",
        "resize": ("33", "3"),
    }


def test_a_restart_keeps_the_terminal(project: Workspace) -> None:
    with interactive_shell(project) as session:
        session.type(f'{prefixes()["watch"]} sh -c \'echo "up $GH_TOKEN"; read line; echo "got $line"; exit 5\'\n')
        session.expect("up zqTokenzq\n")
        project.broker.push({"TOKEN": "zqNewzq", "npm": "x", "aws": {"id": "1", "key": "2"}}, KEY="AA==")
        session.expect("up zqNewzq\n")
        session.type("words\n")
        session.expect("got words\n")
        assert status(session) == "5"


@pytest.mark.parametrize("prefix", prefixes().values(), ids=prefixes())
def test_a_terminal_that_hangs_up(project: Workspace, prefix: str) -> None:
    """Only the first process of a session gets the signal, as in a container with a terminal."""
    log = project.path / "log"
    script = f'mkfifo idle; trap "echo hup >{log}; exit" HUP; {IDLE}'
    argv = [*shlex.split(prefix), "bash", "-c", script]
    with TerminalSession(argv, programs.environment(project.environment), project.path) as session:
        session.expect("up\n")
        session.hang_up()
        poll("the signal", lambda: log.exists() and log.read_text() == "hup\n")
        session.process.wait(WAIT_SECONDS)
