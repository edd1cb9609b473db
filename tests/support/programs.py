"""Run the two commands as a user does: real processes, with pipes or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping, Sequence

# Generous: the slowest takes a fifth of a second.
WAIT_SECONDS = 60.0
TERMINAL_ROWS, TERMINAL_COLUMNS = 40, 120

SECRET = "remo_broker.secret"
BROKERCTL = "remo_broker.ctl"


def require_ascii_path() -> None:
    """Skip a test in another locale where Python, which encodes paths as the locale does, could
    not find this tree."""
    if not str(REPOSITORY).isascii():
        unavailable("Python finds no module of this tree in that locale: the tree's path is not ASCII")


def command(module: str, *arguments: str | os.PathLike[str]) -> list[str]:
    return [sys.executable, "-P", "-m", module, *(os.fspath(one) for one in arguments)]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(REPOSITORY),
        "LANG": "C.UTF-8",
        **(extra or {}),
    }


def run(
    module: str,
    *arguments: str | os.PathLike[str],
    stdin: bytes | None = b"",
    env: Mapping[str, str] | None = None,
    cwd: pathlib.Path | None = None,
    uid: int | None = None,
    processor_seconds: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with pipes, to its end; with `uid`, as that user; with `processor_seconds`, until
    the kernel kills it for taking more, however busy the machine is."""
    limit = [] if processor_seconds is None else ["prlimit", f"--cpu={processor_seconds}"]
    return subprocess.run(
        [*limit, *command(module, *arguments)],
        input=stdin,
        capture_output=True,
        env=environment(env),
        cwd=cwd,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        timeout=WAIT_SECONDS,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[bytes], status: int) -> str:
    """A failed program's standard error: one line, and a second with a hint, if any.

    Standard output must be empty.
    """
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == b""
    text = done.stderr.decode()
    error, _, hint = text.removesuffix("\n").partition("\n")
    assert error
    assert not hint or (hint.startswith("Hint: ") and "\n" not in hint), text
    return text.removesuffix("\n")


class Terminal:
    """The result of a program on a terminal: all its output, and its exit status."""

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status


def first_lines(options: str = "") -> str:
    """Those of an executable Python program. `#!` takes no path with a blank, as this tree's
    may be."""
    return f"#!/bin/sh\n'''exec' '{sys.executable}' {options} \"$0\" \"$@\"\n' '''\n"


def on_terminal(
    module: str,
    *arguments: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    cwd: pathlib.Path | None = None,
    keys: bytes = b"",
) -> Terminal:
    """Run a program with its three streams on a terminal; type `keys` after its first output."""
    return run_on_terminal(command(module, *arguments), {"TERM": "xterm-256color", **(env or {})}, cwd, keys)


def run_on_terminal(
    argv: Sequence[str], env: Mapping[str, str], cwd: pathlib.Path | None = None, keys: bytes = b""
) -> Terminal:
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", TERMINAL_ROWS, TERMINAL_COLUMNS, 0, 0))
        with subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=environment(env), cwd=cwd, start_new_session=True
        ) as process:
            os.close(slave)
            slave = -1
            try:
                written = _read(master, keys)
                status = process.wait(WAIT_SECONDS)
            except BaseException:
                process.kill()
                raise
        return Terminal(written.decode("utf-8", "replace"), status)
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


def answer_on_terminal(
    argv: Sequence[str], stdin: bytes, env: Mapping[str, str], cwd: pathlib.Path | None = None
) -> bytes:
    """What a program writes to a terminal, with its input from a pipe."""
    master, slave = pty.openpty()
    with os.fdopen(master, closefd=True), os.fdopen(slave) as terminal:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=slave, stderr=slave, env=environment(env), cwd=cwd
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        with contextlib.suppress(BrokenPipeError):  # it has ended without reading any
            process.stdin.close()
        terminal.close()
        written = _read(master, b"")
        process.wait(WAIT_SECONDS)
        return written


def _read(master: int, keys: bytes) -> bytes:
    written = b""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        readable, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError(f"the program on the terminal did not end; so far: {written!r}")
        try:
            data = os.read(master, 65536)
        except OSError:  # the last process on the terminal has exited
            return written
        if not data:
            return written
        written += data
        if keys:
            os.write(master, keys)
            keys = b""
