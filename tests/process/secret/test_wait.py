"""`remo-secret wait`: a container may start before the sidecar, and before the broker."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.options import parse
from remo_broker.cli.program import Problem
from remo_broker.protocol.shared_limits import REPLY_SECONDS
from remo_broker.secret.commands import PROGRAM
from remo_broker.secret.project_socket import SOCKET_VARIABLE
from remo_broker.secret.wait import wait
from tests.support import programs
from tests.support.broker import NOBODY, Broker, listen, registration
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker
    from tests.process.secret.conftest import Workspace


def begin(path: pathlib.Path, *arguments: str) -> subprocess.Popen[bytes]:
    argv = programs.command(programs.SECRET, "--socket", path, "wait", *arguments)
    return subprocess.Popen(argv, env=programs.environment(), stderr=subprocess.PIPE)


def test_secrets_are_already_there(project: Workspace) -> None:
    assert project.run("wait", "--timeout", "0").returncode == 0
    assert not project.broker.records("fetch"), "waiting is not a fetch"


def test_until_the_push(empty: Workspace) -> None:
    with begin(empty.broker.project(), "--timeout=60") as waiting:
        time.sleep(0.5)
        assert waiting.poll() is None
        empty.push_all()
        assert waiting.wait(30) == 0


def test_until_the_broker_is_there(start_broker: StartBroker, directory: pathlib.Path) -> None:
    with begin(directory / "s/myrepo.sock", "--timeout=60") as waiting:
        time.sleep(0.3)
        broker = start_broker(projects=[registration("myrepo", "TOKEN")])
        time.sleep(0.3)
        broker.stop()  # removed again: its socket file exists by then
        time.sleep(0.3)
        assert waiting.poll() is None
        broker.start()
        broker.push({})
        assert waiting.wait(30) == 0


def test_until_the_next_broker_if_one_dies_with_the_request(start_broker: StartBroker, directory: pathlib.Path) -> None:
    path = directory / "s/myrepo.sock"
    path.parent.mkdir()
    with listen(path) as dying:
        waiting = begin(path, "--timeout=60")
        dying.accept()[0].close()
    with waiting:
        broker = start_broker(projects=[registration("myrepo", "TOKEN")])
        broker.push({})
        assert waiting.wait(30) == 0


def test_a_cleared_store_is_waited_for(project: Workspace) -> None:
    assert project.broker.ask({"op": "clear-creds"})["ok"]
    assert "waited 0 s: the broker has no secrets yet" in refused(project.run("wait", "--timeout=0"), 4)


def test_the_timeout(empty: Workspace, directory: pathlib.Path) -> None:
    begun = time.monotonic()
    assert "waited 1 s: the broker has no secrets yet" in refused(empty.run("wait", "--timeout=1"), 4)
    assert time.monotonic() - begun >= 1
    done = programs.run(programs.SECRET, "--socket", directory / "none.sock", "wait", "--timeout", "0")
    assert "does not exist" in refused(done, 5)


@pytest.mark.parametrize("seconds", [0, 2])
def test_no_reply(directory: pathlib.Path, seconds: int) -> None:
    """A broker that hangs: the kernel accepts the connection, and nothing follows."""
    path = directory / "x.sock"
    with listen(path):
        begun = time.monotonic()
        done = programs.run(programs.SECRET, "--socket", path, "wait", f"--timeout={seconds}")
        took = time.monotonic() - begun
    assert f"waited {seconds} s: {path}: connected, but there was no reply" in refused(done, 5)
    assert seconds <= took < REPLY_SECONDS - 5, "and not what any other request may take"


def test_several_sockets_are_an_error_at_once(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remo_broker.protocol.paths.SOCKET_DIR", str(directory))
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    arguments = parse(PROGRAM, ["wait", "--timeout=0"])
    with pytest.raises(Problem, match=r"^waited 0 s: .* has no socket of a project"):
        wait(arguments)
    for name in ("a.sock", "b.sock"):
        listen(directory / name).close()
    with pytest.raises(Problem, match=r"^\S+ has several sockets"):
        wait(arguments)


@pytest.mark.parametrize("what", ["uid", "registration", "file"])
def test_an_error_that_waiting_cannot_fix_is_reported_at_once(start_broker: StartBroker, what: str) -> None:
    broker: Broker = start_broker(projects=[registration("myrepo", "TOKEN", allowed_uids=[NOBODY])])
    path = broker.project()
    if what == "file":
        path = broker.directory / "file"
        path.write_text("")
    done = programs.run(programs.SECRET, "--socket", path, "wait", "--timeout=600")
    refused(done, 5 if what == "file" else 3)
