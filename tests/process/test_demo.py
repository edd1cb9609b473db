"""`./run demo`: it succeeds, is readable in a terminal of 80 columns, and leaves nothing behind
however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import short_directory
from tests.support.machine import REPOSITORY, poll

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Sequence

DEMO_SECONDS = 120
COMMAND = (sys.executable, "-m", "tests.demo")


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    """A directory whose name must be escaped in an address, a URL, a shell and XML, and is not
    ASCII."""
    with short_directory() as path:
        odd = path / "%20 é,&<'"
        odd.mkdir()
        yield odd


def environment(directory: pathlib.Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TMPDIR": str(directory), "COLUMNS": "80"}


def processes(directory: pathlib.Path) -> Sequence[str]:
    """The command lines that contain the directory."""
    listed = subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(directory) in line]


def test_from_start_to_stop(directory: pathlib.Path) -> None:
    done = subprocess.run(
        COMMAND,
        cwd=REPOSITORY,
        env=environment(directory),
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    where, *lines = done.stdout.splitlines()
    assert where.startswith(f"The demo runs in its own directory: DEMO={directory}")
    assert max(map(len, lines)) < 80
    for shown in (
        "$ remo-brokerctl register $DEMO/projects/myrepo\n     Registered myrepo",
        "Pushed 3 secrets; generation 1.",
        "$ kill -KILL",
        "demo-token-that-was-renewed\n     (from process ",
        "demo-token-of-nobody\n",
        "not in the manifest of myrepo",
        "Cleared: the broker holds no secrets.",
        '"REMO_DECISION": "deny"',
        "deny           denied        not_in_manifest  NPM_TOKEN",
    ):
        assert shown in done.stdout
    assert not list(directory.iterdir())
    assert not processes(directory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", [b"2. ", b"6. ", b"9. "])
def test_interrupted(directory: pathlib.Path, number: signal.Signals, step: bytes) -> None:
    """The whole process group is interrupted, as by Ctrl-C on a terminal."""
    with subprocess.Popen(
        COMMAND,
        cwd=REPOSITORY,
        env=environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith(step):
            assert demo.poll() is None
        os.killpg(demo.pid, number)
        _, complaints = demo.communicate(timeout=DEMO_SECONDS)
    assert (demo.returncode, complaints) == (128 + number, b"")
    assert not list(directory.iterdir())
    poll("the end of all processes", lambda: not processes(directory))


def test_a_closed_pipe_ends_it(directory: pathlib.Path) -> None:
    with subprocess.Popen(
        COMMAND, cwd=REPOSITORY, env=environment(directory), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.stderr is not None
        assert demo.stderr.read() == b"demo: [Errno 32] Broken pipe\n"
    assert demo.returncode == 1
    assert not list(directory.iterdir())
    assert not processes(directory)


def test_a_directory_too_deep_for_sockets() -> None:
    with short_directory() as directory:
        deep = directory / ("d" * 100)
        deep.mkdir()
        done = subprocess.run(
            COMMAND,
            cwd=REPOSITORY,
            env=environment(deep),
            capture_output=True,
            text=True,
            timeout=DEMO_SECONDS,
            check=False,
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.endswith("is too long a path for sockets; try TMPDIR=/tmp ./run demo")
        assert not list(deep.iterdir())
