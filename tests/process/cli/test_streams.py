"""Standard streams that are closed, full or a directory: what is reported where, and the exit
status."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.broker import listen, registration

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker
    from tests.support.broker import Broker


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    broker.push({"TOKEN": "zqMarkerzq"})
    return broker


def redirected(redirection: str, module: str, *arguments: str | pathlib.Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program through a shell that first closes or redirects its streams; capture the
    rest."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *programs.command(module, *arguments)],
        input=b"",
        capture_output=True,
        env=programs.environment(),
        timeout=programs.WAIT_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "0<&- 2>&-", "0<&- >&- 2>&-"])
def test_no_standard_error(broker: Broker, redirection: str) -> None:
    """An error goes to standard error or nowhere: a reader of standard output would take it for a
    secret."""
    for module, arguments, status in (
        (programs.SECRET, ["--socket", broker.project(), "get", "OTHER"], 3),
        (programs.SECRET, ["get"], 2),
        (programs.BROKERCTL, ["--socket", broker.admin, "show", "nowhere"], 1),
    ):
        done = redirected(redirection, module, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">&-", "Bad file descriptor"), ("0<&- >&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
)
def test_no_standard_output(broker: Broker, redirection: str, why: str) -> None:
    for module, arguments in (
        (programs.SECRET, ["--socket", broker.project(), "get", "TOKEN"]),
        (programs.BROKERCTL, ["--socket", broker.admin, "list"]),
        (programs.BROKERCTL, ["--help"]),
    ):
        done = redirected(redirection, module, *arguments)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode().partition(": ")[2] == f"output: {why}\n"


def test_no_standard_input(broker: Broker) -> None:
    done = redirected("0<&-", programs.BROKERCTL, "--socket", broker.admin, "push")
    assert programs.refused(done, 1) == "remo-brokerctl: standard input: Bad file descriptor"


def test_a_reader_that_closes_the_pipe_early(broker: Broker) -> None:
    """That is not reported, and the exit status is the command's."""
    for arguments, status in ((["list"], 0), (["explain", "myrepo", "OTHER"], 1), (["show", "nowhere"], 1)):
        done = redirected("", programs.BROKERCTL, "--socket", broker.admin, *arguments)
        assert done.returncode == status
        reader, writer = socket.socketpair()
        reader.close()
        with writer:
            early = subprocess.run(
                programs.command(programs.BROKERCTL, "--socket", broker.admin, *arguments),
                stdout=writer.fileno(),
                stderr=subprocess.PIPE,
                env=programs.environment(),
                timeout=programs.WAIT_SECONDS,
                check=False,
            )
        assert (early.returncode, early.stderr) == (status, done.stderr)


def test_interrupted_while_it_waits(directory: pathlib.Path) -> None:
    """^C while a broker does not answer."""
    with listen(directory / "admin.sock") as listening:
        process = subprocess.Popen(
            programs.command(programs.BROKERCTL, "--socket", directory / "admin.sock", "list"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=programs.environment(),
        )
        with process:
            connection, _ = listening.accept()
            with connection:
                assert connection.recv(1000)
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=programs.WAIT_SECONDS) == (b"", b"")
        assert process.returncode == 130


def test_interrupted_while_it_starts() -> None:
    """Most of a short command's time is imports."""
    code = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'remo_broker.cli.program': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "runpy.run_module('remo_broker.ctl', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=programs.environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
