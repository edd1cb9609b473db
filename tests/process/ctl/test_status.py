"""`remo-brokerctl status` for a broker that runs, does not run, or hangs."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import CommandLine, write_project
from tests.support import programs
from tests.support.broker import NOBODY
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

TIME = r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+; \d+\S* ago"


def test_status_of_a_running_broker(operator: CommandLine) -> None:
    text = operator.says("status")
    assert re.fullmatch(
        rf"""● remo-broker 2\.0\.0
   State: running since {TIME}
Protocol: 2
 Secrets: none; waiting for a push
  Memory: \S+, .+
   Audit: healthy, to stderr
Projects: 0
 Fetches: 0 handed out, 0 not there, 0 denied
""",
        text,
    ), text
    operator.broker.push({"TOKEN": "x"})
    assert re.search(rf"Secrets: 1 since {TIME}, generation 1\n", operator.says("status"))


def test_status_as_json_is_that_of_the_protocol(operator: CommandLine) -> None:
    found = operator.json("status")
    wanted = operator.broker.status()
    del wanted["ok"]
    assert found.pop("state") == "running"
    assert found.keys() == wanted.keys()
    assert found["audit"] == wanted["audit"]


def test_status_names_a_project_that_a_restart_would_serve_again(
    operator: CommandLine, directory: pathlib.Path
) -> None:
    operator.says("register", write_project(directory, "app", "A"))
    obstacle = operator.broker.state / "registrations.json.new"
    obstacle.mkdir()
    refused(operator.run("unregister", "app"), 1)
    assert operator.json("status")["unsaved"] == ["app"]
    assert re.search(r"Not saved: app .*'remo-brokerctl unregister app'", operator.says("status"))
    obstacle.rmdir()
    operator.run("unregister", "app")  # the broker may have been faster
    assert "unsaved" not in operator.json("status")


def test_status_of_a_broker_that_does_not_run(operator: CommandLine) -> None:
    operator.broker.process.kill()
    operator.broker.wait()
    operator.broker.process.returncode = 0  # this end was intended
    assert operator.says("status", status=3).startswith("○ remo-broker\n State: stopped; ")
    assert operator.json("status", status=3) == {"state": "stopped", "socket_path": str(operator.broker.admin)}
    operator.broker.admin.unlink()
    assert "Hint: run 'systemctl enable --now" in refused(operator.run("status"), 4)


@pytest.mark.takes_root("running as another user")
def test_an_unknown_status(operator: CommandLine) -> None:
    operator.broker.admin.chmod(0o660)
    done = programs.run(programs.BROKERCTL, f"--socket={operator.broker.admin}", "status", uid=NOBODY)
    assert "use sudo, or join the group remo-broker-admin" in refused(done, 4)


def test_a_broker_that_hangs(operator: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that listens and does not answer is not idle."""
    from remo_broker.client import connection
    from remo_broker.ctl import main

    monkeypatch.setattr(connection.BaseClient.__init__, "__kwdefaults__", {"timeout": 0.3})
    operator.broker.signal(signal.SIGSTOP)
    try:
        assert main.main([f"--socket={operator.broker.admin}", "status"]) == 4
    finally:
        operator.broker.signal(signal.SIGCONT)


# --- register and what follows
