"""`exec --watch` and `render --watch`: a rotated secret reaches the program, which sees no other
difference."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.conftest import KEY_BASE64, MANIFEST, SECRETS
from tests.support import programs
from tests.support.machine import REPOSITORY, poll
from tests.support.processes import group_has_pending, state

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.process.secret.conftest import Workspace

# A program that records each of its starts, once it can hear of more, and each SIGHUP.
RECORD = 'trap "echo hup >>log" HUP; echo "start $$ $GH_TOKEN" >>log; while :; do sleep 0.05; done'

# Waits on a FIFO, in bash, without children: none stays stopped when only the command is continued.
MAKE_FIFO = "mkfifo idle"
IDLE = "while :; do read -t 0.05 -u 3; done 3<>idle"
# Executes its arguments in a process group of its own.
OWN_GROUP = "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class WatchedCommand:
    """`remo-secret exec --watch` of a shell script, in a directory with its log."""

    def __init__(self, project: Workspace, script: str, *options: str, process_group: int | None = None) -> None:
        self.project = project
        self.log = project.path / "log"
        self.errors = project.path / "errors"
        argv = programs.command(programs.SECRET, "exec", "--watch", *options, "--", "sh", "-c", script)
        environment = programs.environment(project.environment)
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                argv, env=environment, cwd=project.path, stderr=errors, process_group=process_group
            )

    def lines(self) -> list[str]:
        """The lines of the log that are complete."""
        return self.log.read_text().split("\n")[:-1] if self.log.exists() else []

    def wait_for(self, count: int) -> list[str]:
        poll(f"{count} lines", lambda: len(self.lines()) >= count, 60)
        return self.lines()

    def push(self, token: str) -> None:
        self.project.broker.push(SECRETS | {"TOKEN": token}, KEY=KEY_BASE64)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            for line in self.lines():
                if line.startswith("start "):  # those that ignore SIGTERM
                    subprocess.run(["kill", "-9", line.split()[1]], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def watched(project: Workspace) -> Iterator[WatchedCommand]:
    found = WatchedCommand(project, RECORD)
    found.wait_for(1)
    yield found
    found.end()


def assert_next_change_is_the_first(watched: WatchedCommand) -> None:
    """Assert that nothing so far had an effect: the first change that has one writes the second
    line."""
    watched.push("zqLastzq")
    lines = watched.wait_for(2)
    assert len(lines) == 2
    assert lines[1].endswith(" zqLastzq")


def test_a_change_restarts_the_command(watched: WatchedCommand) -> None:
    watched.push("zqNewzq")
    first, second = watched.wait_for(2)
    assert first.endswith(" zqTokenzq")
    assert second.endswith(" zqNewzq")
    assert not os.path.exists(f"/proc/{first.split()[1]}"), "the old one has ended"


def test_a_change_while_it_starts_is_seen(project: Workspace) -> None:
    """The command itself pushes, between the first fetch and the watch."""
    watched = WatchedCommand(project, f"[ $GH_TOKEN != zqTokenzq ] || echo up >go; {RECORD}")
    try:
        poll("the command", (project.path / "go").exists)
        watched.push("zqNewzq")
        assert watched.wait_for(2)[1].endswith(" zqNewzq")
    finally:
        watched.end()


def test_an_irrelevant_change_does_nothing(watched: WatchedCommand) -> None:
    watched.project.push_all()
    watched.project.broker.push(SECRETS | {"OTHER": "x"}, KEY=KEY_BASE64)
    watched.project.broker.ask({"op": "clear-creds"})
    watched.project.push_all()
    assert_next_change_is_the_first(watched)


def test_the_brokers_restart_does_nothing(watched: WatchedCommand) -> None:
    watched.project.broker.stop()
    watched.project.broker.start()
    watched.project.push_all()
    assert_next_change_is_the_first(watched)


def test_new_bindings_restart_the_command(watched: WatchedCommand) -> None:
    watched.project.register(MANIFEST + '[[secrets.KEY2]]\nenv_var = "NEW"\noptional = true\n')
    watched.wait_for(2)


def test_secrets_that_cannot_be_used_leave_the_command_alone(watched: WatchedCommand) -> None:
    """Missing, denied, or for a place that cannot be written: the old secrets stay in use, with a
    message."""
    watched.project.broker.push({"TOKEN": "zqOnlyzq"})
    poll("the reason", lambda: "npm" in watched.errors.read_text())
    watched.project.register(MANIFEST + '[secrets.KEY2]\nenv_var = "GH_TOKEN"\noptional = true\n')
    watched.project.broker.push(SECRETS | {"KEY2": "x"}, KEY=KEY_BASE64)
    poll("the other reason", lambda: "GH_TOKEN" in watched.errors.read_text())
    fetched = len(watched.project.broker.records("fetch"))
    watched.project.register(MANIFEST)
    poll("it to fetch again", lambda: len(watched.project.broker.records("fetch")) >= fetched + len(SECRETS) + 1)
    assert_next_change_is_the_first(watched)
    assert "are not used" in watched.errors.read_text()
    assert "zq" not in watched.errors.read_text()


def test_only_a_signal(project: Workspace) -> None:
    watched = WatchedCommand(project, RECORD, "--signal=HUP", "--keep")
    try:
        watched.wait_for(1)
        watched.push("zqNewzq")
        assert watched.wait_for(2)[1] == "hup"
    finally:
        watched.end()


def test_another_signal_ends_the_command(project: Workspace) -> None:
    script = f'trap "echo int >>log; exit" INT; {RECORD}'
    watched = WatchedCommand(project, script, "--signal=SIGINT")
    try:
        watched.wait_for(1)
        watched.push("zqNewzq")
        lines = watched.wait_for(3)
        assert lines[1] == "int"
        assert lines[2].endswith(" zqNewzq")
    finally:
        watched.end()


def test_a_command_that_ignores_the_signal_is_killed(project: Workspace) -> None:
    watched = WatchedCommand(project, f'trap "" TERM; {RECORD}', "--grace=1")
    try:
        watched.wait_for(1)
        watched.push("zqNewzq")
        assert watched.wait_for(2)[1].endswith("zqNewzq")
    finally:
        watched.process.kill()
        watched.end()


def test_signals_reach_a_command_that_is_about_to_be_restarted(project: Workspace) -> None:
    """The command is slow to end; a second signal then ends everything, and it is not started
    again."""
    script = f'trap "echo term >>log" TERM; trap "echo int >>log; exit 9" INT; {RECORD}'
    watched = WatchedCommand(project, script, "--grace=600")
    try:
        watched.wait_for(1)
        watched.push("zqNewzq")
        watched.wait_for(2)
        watched.process.send_signal(signal.SIGINT)
        assert watched.process.wait(60) == 9
        assert watched.lines()[1:] == ["term", "int"]
    finally:
        watched.process.kill()
        watched.end()


def test_a_change_does_not_restart_a_command_that_was_told_to_end(project: Workspace) -> None:
    """It is slow to end, and a push arrives meanwhile."""
    script = f'trap "echo term >>log" TERM; trap "exit 9" USR1; {RECORD}'
    watched = WatchedCommand(project, script, "--grace=600")
    try:
        watched.wait_for(1)
        watched.process.terminate()
        watched.wait_for(2)
        watched.push("zqNewzq")
        watched.wait_for(3)
        watched.process.send_signal(signal.SIGUSR1)
        assert watched.process.wait(60) == 9
        assert watched.lines()[1:] == ["term", "term"]
    finally:
        watched.process.kill()
        watched.end()


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 42", 42), ("kill -TERM $$", -signal.SIGTERM), ("kill -KILL $$", -signal.SIGKILL)],
)
def test_it_ends_like_the_command(project: Workspace, script: str, status: int) -> None:
    watched = WatchedCommand(project, script)
    assert watched.process.wait(60) == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGRTMIN, signal.SIGRTMAX])
def test_signals_are_passed_on(project: Workspace, number: signal.Signals) -> None:
    script = f"trap 'echo got >>log; exit 7' {number:d}; echo up >>log; while :; do sleep 0.05; done"
    watched = WatchedCommand(project, f"exec bash -c '{script.replace(chr(39), chr(34))}'")
    try:
        watched.wait_for(1)
        watched.process.send_signal(number)
        assert watched.process.wait(60) == 7
        assert watched.lines() == ["up", "got"]
    finally:
        watched.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCONT])
def test_a_signal_to_the_process_group_arrives_once(project: Workspace, number: signal.Signals) -> None:
    """As sent by `kill -- -GROUP` and process managers. The number of each is in the log before the
    next is sent."""
    script = f"{MAKE_FIFO}; trap 'echo got >>log' {number:d}; trap 'echo end >>log; exit 7' USR2; echo up >>log"
    watched = WatchedCommand(project, f'exec bash -c "{script}; {IDLE}"', process_group=0)
    try:
        watched.wait_for(1)
        for expected in range(2, 5):
            os.killpg(watched.process.pid, number)
            watched.wait_for(expected)
            poll("the group to have taken it", lambda: not group_has_pending(watched.process.pid, number))
        watched.process.send_signal(signal.SIGUSR2)
        assert watched.process.wait(60) == 7
        assert watched.lines() == ["up", "got", "got", "got", "end"]
    finally:
        watched.process.kill()
        watched.end()


def test_a_group_signal_reaches_a_command_in_a_group_of_its_own(project: Workspace) -> None:
    """As made by an interactive shell: no other process forwards the signal."""
    script = "trap 'echo got >>log; exit 7' TERM; echo up >>log; while :; do sleep 0.05; done"
    watched = WatchedCommand(project, f"exec python3 -c '{OWN_GROUP}' bash -c \"{script}\"", process_group=0)
    try:
        watched.wait_for(1)
        os.killpg(watched.process.pid, signal.SIGTERM)
        assert watched.process.wait(60) == 7
    finally:
        watched.process.kill()
        watched.end()


def test_a_stopped_and_continued_group_gets_the_next_signal(project: Workspace) -> None:
    """SIGSTOP and SIGCONT, to the group and to the one process."""
    script = f"{MAKE_FIFO}; trap 'echo got >>log' USR1; trap 'exit 7' USR2; echo up >>log; {IDLE}"
    watched = WatchedCommand(project, f'exec bash -c "{script}"', process_group=0)
    try:
        watched.wait_for(1)
        os.killpg(watched.process.pid, signal.SIGSTOP)
        watched.process.send_signal(signal.SIGCONT)
        watched.process.send_signal(signal.SIGUSR1)
        watched.wait_for(2)
        os.killpg(watched.process.pid, signal.SIGUSR1)
        watched.wait_for(3)
        watched.process.send_signal(signal.SIGUSR2)
        assert watched.process.wait(60) == 7
        assert watched.lines() == ["up", "got", "got"]
    finally:
        watched.process.kill()
        watched.end()


# A member of the group that was stopped is continued by the one that waited for its answer.
STOPPED_MEMBER = """
import os, signal
from remo_broker.secret.process_group import GroupMember
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCONT])
member = GroupMember()
os.kill(member.pid, signal.SIGSTOP)
os.waitpid(member.pid, os.WUNTRACED)
print(member.was_sent(signal.SIGUSR1), member.was_sent(signal.SIGCONT))
"""


def test_what_continues_the_member_of_a_group_was_not_sent_to_the_group() -> None:
    argv = [sys.executable, "-c", STOPPED_MEMBER]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_command_inherits_ignored_and_blocked_signals(project: Workspace) -> None:
    """As when started by nohup(1) or as a shell's background job."""
    command = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    found = []
    for argv in (command, programs.command(programs.SECRET, "exec", "--watch", "--", *command)):
        done = subprocess.run(
            ["env", "--ignore-signal=HUP,CHLD", "--block-signal=USR2", *argv],
            env=programs.environment(project.environment),
            cwd=project.path,
            stdout=subprocess.PIPE,
            check=True,
        )
        found += [int(line.split()[1], 16) for line in done.stdout.splitlines()]
    blocked, ignored, blocked_watched, ignored_watched = found
    assert blocked_watched == blocked == 1 << signal.SIGUSR2 - 1
    own = 1 << 32 - 1 | 1 << 33 - 1  # signals of the C library, which posix_spawn ignores
    assert ignored_watched & ~own | 1 << signal.SIGCHLD - 1 == ignored, "but children can be waited for"


def test_a_command_that_stops_also_stops_remo_secret(watched: WatchedCommand) -> None:
    child = int(watched.lines()[0].split()[1])
    os.kill(child, signal.SIGSTOP)
    poll("both to stop", lambda: state(child) == state(watched.process.pid) == "T")
    watched.process.send_signal(signal.SIGCONT)
    poll("both to go on", lambda: state(child) != "T" and state(watched.process.pid) != "T")


def test_rendered_files_follow_changes(project: Workspace) -> None:
    argv = programs.command(programs.SECRET, "render", "--watch")
    environment = programs.environment(project.environment)
    target: pathlib.Path = project.home / ".aws/credentials"
    with subprocess.Popen(argv, env=environment, cwd=project.path, stdout=subprocess.PIPE) as process:
        try:
            poll("the file", target.exists)
            project.broker.push(SECRETS | {"aws": {"id": "rotated", "key": "k"}}, KEY=KEY_BASE64)
            poll("the new file", lambda: "rotated" in target.read_text())
            project.push_all()
            poll("the old file", lambda: "zqIdzq" in target.read_text())
        finally:
            process.terminate()
