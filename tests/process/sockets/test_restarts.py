"""A restart keeps the registrations and widens nothing."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, ask, registration
from tests.support.projects import allowlist, make_project, register

if TYPE_CHECKING:
    from tests.conftest import StartBroker


def test_a_restart_widens_nothing(start_broker: StartBroker, directory: pathlib.Path) -> None:
    """Exactly the validated allowlist applies, whatever is on disk."""
    broker = start_broker()
    project = make_project(directory / "myrepo", "A", "B", ttl_seconds=60, max_entries=5)
    gone = make_project(directory / "gone", "A")
    register(broker, project, allowed_uids=[os.getuid()])
    register(broker, gone)
    broker.push({"A": "a", "C": "c"})
    before = broker.ask({"op": "show", "name": "myrepo"})
    broker.stop()
    make_project(project, "A", "B", "C")
    shutil.rmtree(gone)
    broker = start_broker()
    after = broker.ask({"op": "show", "name": "myrepo"})
    for key in ("allowlist", "ttl_seconds", "max_entries", "allowed_uids", "project_path", "socket_path"):
        assert after[key] == before[key]
    assert broker.get("A")["reason"] == "no_snapshot"  # secrets are never saved
    broker.push({"A": "a", "C": "c"})
    assert broker.get("C")["reason"] == "not_in_manifest"
    assert broker.get("A", "gone")["value"] == "a"
    assert broker.ask({"op": "reload", "name": "myrepo"})["allowlist"] == ["A", "B", "C"]
    assert broker.get("C")["value"] == "c"


def test_a_restart_applies_stricter_limits(start_broker: StartBroker, directory: pathlib.Path) -> None:
    broker = start_broker()
    register(broker, make_project(directory / "myrepo", "A", ttl_seconds=60, max_entries=5))
    broker.stop()
    broker = start_broker(cache_default_ttl_seconds=20, cache_default_max_entries=2)
    shown = broker.ask({"op": "show", "name": "myrepo"})
    assert (shown["ttl_seconds"], shown["max_entries"]) == (20, 2)
    broker.push({"A": "a"})
    assert 0 < broker.get("A")["ttl_seconds"] <= 20


def test_a_kill_loses_no_registration(start_broker: StartBroker, directory: pathlib.Path) -> None:
    broker = start_broker()
    register(broker, make_project(directory / "myrepo", "A"))
    broker.process.kill()
    broker.process.wait()
    assert allowlist(start_broker()) == ["A"]


def test_a_registration_that_comes_back_is_not_served_to_another_directory(
    start_broker: StartBroker, directory: pathlib.Path
) -> None:
    """It could not be removed from a full disk, nor another be saved in its place, whose container had the directory
    mounted by then."""
    broker = start_broker()
    register(broker, make_project(directory / "myrepo", "A"))
    (broker.state / "registrations.json.new").mkdir()
    assert broker.ask({"op": "unregister", "name": "myrepo"})["reason"] == "state_unwritable"
    assert register(broker, make_project(directory / "other" / "myrepo", "A"))["reason"] == "state_unwritable"
    mounted = os.open(broker.mount().parent, os.O_PATH)
    try:
        broker.process.kill()
        broker.process.wait()
        broker = start_broker()
        assert ask(broker.mount(), {"op": "ping"})["ok"]
        assert not os.path.exists(f"/proc/self/fd/{mounted}/broker.sock")
    finally:
        os.close(mounted)


def test_a_damaged_state_file_is_reported_and_kept(start_broker: StartBroker, directory: pathlib.Path) -> None:
    broker = Broker(directory)
    (broker.state / "registrations.json").write_text('{"version":1,"projects":[{"name":"myr')
    broker = start_broker()
    assert broker.status()["project_count"] == 0
    (note,) = broker.notes()
    assert "registrations.json is damaged" in note
    assert len(list(broker.state.glob("registrations.json.corrupt-*"))) == 1
    assert register(broker, make_project(directory / "myrepo", "A"))["ok"]


def test_a_project_whose_socket_cannot_be_created_affects_no_other(
    start_broker: StartBroker, directory: pathlib.Path
) -> None:
    (directory / "s").mkdir()
    (directory / "s" / "bad.sock").mkdir()
    broker = start_broker(projects=[registration("bad", "A"), registration("good", "A")])
    assert allowlist(broker, "good") == ["A"]
    (note,) = broker.notes()
    assert "bad" in note
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):  # noqa: PT011
        client.connect(str(broker.project("bad")))
