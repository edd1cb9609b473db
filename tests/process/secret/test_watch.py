"""`exec --watch` and `render --watch`: a rotated secret reaches the program, and nothing else changes for it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.conftest import KEY_BASE64, SECRETS
from tests.support import programs
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.process.secret.conftest import Project

# A program that records each of its starts and each SIGHUP.
RECORD = 'echo "start $$ $GH_TOKEN" >>log; trap "echo hup >>log" HUP; while :; do sleep 0.05; done'


class WatchedCommand:
    """`remo-secret exec --watch` of a shell script, in a directory with its log."""

    def __init__(self, project: Project, script: str, *options: str) -> None:
        self.project = project
        self.log = project.path / "log"
        argv = programs.command(programs.SECRET, "exec", "--watch", *options, "--", "sh", "-c", script)
        environment = programs.environment(project.environment)
        self.process = subprocess.Popen(argv, env=environment, cwd=project.path, stderr=subprocess.PIPE)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, count: int) -> list[str]:
        poll(f"{count} lines", lambda: len(self.lines()) >= count)
        return self.lines()

    def push(self, token: str) -> None:
        self.project.broker.push(SECRETS | {"TOKEN": token}, KEY=KEY_BASE64)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def watched(project: Project) -> Iterator[WatchedCommand]:
    found = WatchedCommand(project, RECORD)
    found.wait_for(1)
    yield found
    found.end()


def _settle() -> None:
    """Long enough for a change to arrive, had there been one."""
    time.sleep(0.5)


def test_a_change_restarts_the_command(watched: WatchedCommand) -> None:
    _settle()
    watched.push("zqNewzq")
    first, second = watched.wait_for(2)
    assert first.endswith(" zqTokenzq")
    assert second.endswith(" zqNewzq")
    assert not os.path.exists(f"/proc/{first.split()[1]}"), "the old one has ended"


def test_what_is_no_change_for_the_command_does_nothing(watched: WatchedCommand) -> None:
    _settle()
    watched.project.push_all()
    watched.project.broker.push(SECRETS | {"OTHER": "x"}, KEY=KEY_BASE64)
    watched.project.broker.ask({"op": "clear-creds"})
    watched.project.push_all()
    _settle()
    assert len(watched.lines()) == 1


def test_the_brokers_restart_does_nothing(watched: WatchedCommand) -> None:
    _settle()
    watched.project.broker.stop()
    watched.project.broker.start()
    watched.project.push_all()
    _settle()
    assert len(watched.lines()) == 1
    watched.push("zqNewzq")
    assert watched.wait_for(2)[1].endswith("zqNewzq"), "and the next change is seen"


def test_only_a_signal(project: Project) -> None:
    watched = WatchedCommand(project, RECORD, "--signal=HUP", "--keep")
    try:
        watched.wait_for(1)
        _settle()
        watched.push("zqNewzq")
        assert watched.wait_for(2)[1] == "hup"
    finally:
        watched.end()


def test_a_command_that_ignores_the_signal_is_killed(project: Project) -> None:
    watched = WatchedCommand(project, f'trap "" TERM; {RECORD}', "--grace=1")
    try:
        watched.wait_for(1)
        _settle()
        watched.push("zqNewzq")
        assert watched.wait_for(2)[1].endswith("zqNewzq")
    finally:
        watched.process.kill()
        subprocess.run(["kill", "-9", watched.lines()[-1].split()[1]], check=False)
        watched.end()


@pytest.mark.parametrize(("script", "status"), [("exit 42", 42), ("kill -TERM $$", -signal.SIGTERM)])
def test_its_end_is_the_commands(project: Project, script: str, status: int) -> None:
    watched = WatchedCommand(project, script)
    watched.process.communicate(timeout=30)
    assert watched.process.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(project: Project, number: signal.Signals) -> None:
    script = "trap 'echo got >>log; exit 7' TERM INT USR1; echo up >>log; while :; do sleep 0.05; done"
    watched = WatchedCommand(project, script)
    try:
        watched.wait_for(1)
        watched.process.send_signal(number)
        assert watched.process.wait(30) == 7
        assert watched.lines() == ["up", "got"]
    finally:
        watched.end()


def test_a_command_that_stops_is_a_job_that_stops(watched: WatchedCommand) -> None:
    child = int(watched.lines()[0].split()[1])

    def state(pid: int) -> str:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]

    os.kill(child, signal.SIGSTOP)
    poll("both to stop", lambda: state(child) == state(watched.process.pid) == "T")
    watched.process.send_signal(signal.SIGCONT)
    poll("both to go on", lambda: state(child) != "T" and state(watched.process.pid) != "T")


def test_files_follow(project: Project) -> None:
    argv = programs.command(programs.SECRET, "render", "--watch")
    environment = programs.environment(project.environment)
    target: pathlib.Path = project.home / ".aws/credentials"
    with subprocess.Popen(argv, env=environment, cwd=project.path, stdout=subprocess.PIPE) as process:
        try:
            poll("the file", target.exists)
            _settle()
            project.broker.push(SECRETS | {"aws": {"id": "rotated", "key": "k"}}, KEY=KEY_BASE64)
            poll("the new file", lambda: "rotated" in target.read_text())
        finally:
            process.terminate()
