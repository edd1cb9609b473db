"""The registrations on disk: after a kill, an error or a full disk at any point of a save, either
the old or the new ones. What a power failure would leave follows from the order of the calls: the
new file is synced before it replaces the old one, and the directory after that."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from remo_broker.broker.registrations import FILE_NAME, encode, load, save
from tests.machine.faults import saving
from tests.machine.faults.figures import Figures
from tests.machine.faults.scene import NAMES, PROJECTS, FaultMachine, socket_path
from tests.support.machine import unavailable
from tests.support.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

STATE = "/var/lib/remo-broker"
OLD = ["old"]
NEW = ["new", "newer"]


class SystemCall(NamedTuple):
    """A system call of a save: its name, its ordinal number among the calls of this name in the
    process, and its line."""

    name: str
    number: int
    line: str


def _save(directory: pathlib.Path, *options: str) -> tuple[int, list[str]]:
    """Save once under strace; return the exit status, negative for a signal, and the lines of the
    trace."""
    trace = directory / "trace"
    # -B: each run makes the same calls, even if its modules have not been compiled before.
    program = [sys.executable, "-S", "-B", saving.__file__, str(directory / "state")]
    done = subprocess.run(
        ["strace", "--output", trace, *options, *program],
        stderr=subprocess.DEVNULL,
        env={"PYTHONHASHSEED": "0"},
        check=False,
    )
    return done.returncode, trace.read_text().splitlines()


@pytest.fixture
def calls(tmp_path: pathlib.Path) -> list[SystemCall]:
    """The system calls of a save, in their order."""
    if shutil.which("strace") is None:
        unavailable("strace is not installed here: ./run test installs it")
    with _state(tmp_path):
        status, lines = _save(tmp_path)
    assert status == 0
    first, last = (number for number, line in enumerate(lines) if line.startswith("getppid("))
    found = []
    for number in range(first + 1, last):
        name = lines[number].partition("(")[0]
        before = sum(line.startswith(f"{name}(") for line in lines[:number])
        found.append(SystemCall(name, before + 1, lines[number]))
    return found


@contextlib.contextmanager
def _state(directory: pathlib.Path) -> Iterator[str]:
    """A state directory with the old registrations in it."""
    state = directory / "state"
    state.mkdir()
    save(str(state), encode(saving.some(*OLD)))
    yield str(state)
    shutil.rmtree(state)


def _names(state: str) -> list[str]:
    return [one.name for one in load(state)]


def test_a_kill_between_any_two_system_calls_leaves_the_old_or_the_new(
    tmp_path: pathlib.Path, calls: list[SystemCall], figures: Figures
) -> None:
    left = []
    for call in calls:
        with _state(tmp_path) as state:
            status, lines = _save(tmp_path, f"--inject={call.name}:signal=KILL:when={call.number}")
            assert status == -signal.SIGKILL
            assert sum(line.startswith("getppid(") for line in lines) == 1  # during the save
            left.append(_names(state))
            save(state, encode(saving.some("next")))  # what the kill left behind does no harm
            assert _names(state) == ["next"]
    renamed = next(number for number, call in enumerate(calls) if call.name.startswith("rename"))
    figures.tell(f"a save is {len(calls)} system calls; killed before each: {[names[0] for names in left]}")
    assert left == [OLD] * (renamed + 1) + [NEW] * (len(calls) - renamed - 1)


def test_an_error_of_any_system_call_leaves_the_old_or_the_new(tmp_path: pathlib.Path, calls: list[SystemCall]) -> None:
    for call in calls:
        if call.name == "close":  # whose errors fsync has already reported
            continue
        error = "EIO" if call.name == "fsync" else "ENOSPC"
        with _state(tmp_path) as state:
            status, _ = _save(tmp_path, f"--inject={call.name}:error={error}:when={call.number}")
            # It counts as saved exactly if the next start would read it.
            assert (status, _names(state)) in ((0, NEW), (1, OLD)), call.line


def test_everything_is_on_disk_in_the_right_order(calls: list[SystemCall]) -> None:
    assert [call.name for call in calls if call.name in {"write", "fsync", "rename"}] == [
        "write",
        "fsync",
        "rename",
        "fsync",
    ]
    new, directory = (call.line for call in calls if call.name == "openat")
    assert f"{FILE_NAME}.new" in new
    assert "O_DIRECTORY" in directory


# --- the whole broker


@contextlib.contextmanager
def _small_disk(scene: FaultMachine) -> Iterator[pathlib.Path]:
    """The broker's state on a disk that a file fills up; yields that file."""
    machine = scene.machine
    uid, gid = machine.ids("remo-broker")
    script = f"""
set -e
systemctl stop remo-broker.service
cp {STATE}/{FILE_NAME} /run/saved
mount -t tmpfs -o size=16k,mode=0700,uid={uid},gid={gid} small {STATE}
cp /run/saved {STATE}/{FILE_NAME}
chown {uid}:{gid} {STATE}/{FILE_NAME}
systemctl start remo-broker.service
dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null || test -s {STATE}/ballast
"""
    machine.run(["sh", "-c", script])
    try:
        yield machine.path(f"{STATE}/ballast")
    finally:
        machine.run(["sh", "-c", f"systemctl stop remo-broker.service; umount {STATE}"])


def _projects(scene: FaultMachine) -> list[str]:
    return [project["name"] for project in scene.status()["projects"]]


def _allowed(scene: FaultMachine, project: str) -> list[str]:
    names: list[str] = scene.machine.ask(socket_path(project), {"op": "info"})["allowlist"]
    return names


def test_a_full_disk_changes_nothing_but_a_project_can_be_unregistered(machine: Machine) -> None:
    scene, operator = FaultMachine(machine), Operator(machine)
    scene.write_manifest("third", NAMES)
    for project in PROJECTS:
        scene.write_manifest(project, NAMES[:1])
    with _small_disk(scene) as ballast:
        inodes = scene.read_inodes()
        refusals = [
            operator.ask("register", name="third", project_path="/projects/third"),
            operator.ask("reload", name="owned"),
        ]
        assert [(one["code"], one["reason"]) for one in refusals] == [("internal_error", "state_unwritable")] * 2
        assert all(STATE in one["message"] for one in refusals)

        def as_before() -> None:
            assert _projects(scene) == sorted(PROJECTS)
            assert [_allowed(scene, project) for project in PROJECTS] == [NAMES, NAMES]
            assert not machine.path(socket_path("third")).exists()

        as_before()
        assert scene.read_inodes() == inodes
        assert operator.ask("unregister", name="stored")["reason"] == "state_unwritable"
        assert _projects(scene) == ["owned"]
        assert not machine.path(socket_path("stored")).exists()
        scene.signal(signal.SIGKILL)
        scene.answered_after(time.monotonic())
        as_before()
        # With some space, each of them can be retried.
        ballast.unlink()
        scene.register("third")
        assert scene.admin(op="unregister", name="stored")["ok"]
        assert operator.do("reload", name="owned")["allowlist"] == NAMES[:1]
        scene.signal(signal.SIGKILL)
        scene.answered_after(time.monotonic())
        assert _projects(scene) == ["owned", "third"]
        assert _allowed(scene, "owned") == NAMES[:1]


def _cut(file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def _lock_away(file: pathlib.Path) -> None:
    file.chmod(0o600)
    shutil.chown(file, 0, 0)


def _replace_by_a_directory(file: pathlib.Path) -> None:
    file.unlink()
    file.mkdir()


def _kept(machine: Machine) -> list[pathlib.Path]:
    return list(machine.path(STATE).glob(f"{FILE_NAME}.corrupt-*"))


@pytest.mark.parametrize("damage", [_cut, _lock_away, _replace_by_a_directory])
def test_a_damaged_file_does_not_stop_the_broker(machine: Machine, damage: object) -> None:
    assert callable(damage)
    scene = FaultMachine(machine)
    file = machine.path(f"{STATE}/{FILE_NAME}")
    damage(file)
    scene.signal(signal.SIGKILL)
    time.sleep(0.1)
    # Clients of a project whose socket a unit holds learn the reason; the others' sockets are gone,
    # or wait for a file that can be read.
    reply = machine.ask(socket_path("owned"), {"op": "get", "name": NAMES[0]})
    assert (reply["code"], reply["reason"]) == ("denied", "not_registered")
    assert _projects(scene) == []
    assert machine.path(socket_path("stored")).exists() == (damage is not _cut)
    assert len(_kept(machine)) == (damage is _cut)  # a possibly intact file stays until it is replaced
    assert file.exists() == (damage is not _cut)
    said = [
        entry["MESSAGE"]
        for entry in machine.journal(f"--since=@{scene.since:.6f}", "SYSLOG_IDENTIFIER=remo-broker", "PRIORITY=3")
    ]
    [lost] = [message for message in said if FILE_NAME in message]
    assert "no project is registered" in lost
    assert f"{FILE_NAME}.corrupt" in lost
    warned = machine.journal(f"--since=@{scene.since:.6f}", "SYSLOG_IDENTIFIER=remo-broker", "PRIORITY=4")
    assert any("stored" in entry["MESSAGE"] for entry in warned) == (damage is _cut)
    # After registering again, everything works as before.
    for project in PROJECTS:
        scene.register(project)
    assert _projects(scene) == sorted(PROJECTS)
    assert len(_kept(machine)) == 1
