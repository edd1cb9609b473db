"""Manifests read again, by reload and by SIGHUP."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, Link
from tests.support.machine import poll
from tests.support.projects import allowlist, make_project, register, reload
from tests.support.slow_reader import a_reader_is_slow, slow_parser

if TYPE_CHECKING:
    from tests.conftest import StartBroker


def test_open_connections_see_a_reload_on_their_next_request(broker: Broker, project: pathlib.Path) -> None:
    register(broker, project)
    broker.push({"A": "a", "B": "b", "C": "c"})
    with Link(broker.project()) as client:

        def got(name: str) -> object:
            answer = client.ask({"op": "get", "name": name})
            return answer.get("value") or answer["reason"]

        assert [got(name) for name in "ABC"] == ["a", "b", "not_in_manifest"]
        make_project(project, "C", "A")
        assert [got(name) for name in "ABC"] == ["a", "b", "not_in_manifest"]  # not until an operator reloads it
        assert reload(broker) == {"ok": True, "allowlist": ["C", "A"]}
        assert [got(name) for name in "ABC"] == ["a", "not_in_manifest", "c"]
        assert client.ask({"op": "info"})["allowlist"] == ["C", "A"]
    a = broker.records("fetch", secret="A")
    assert [one["REMO_BACKEND"] for one in a] == ["store", "cache", "cache"]  # its lease was kept
    (record,) = broker.records("manifest.reloaded")
    assert (record["REMO_PROJECT"], record["REMO_ALLOWLIST_SIZE"], record["PRIORITY"]) == ("myrepo", "2", "5")


def test_a_failed_reload_changes_nothing(broker: Broker, project: pathlib.Path) -> None:
    register(broker, project)
    broker.push({"A": "a"})
    make_project(project, "A-")
    assert reload(broker)["code"] == "manifest_invalid"
    shutil.rmtree(project)
    assert reload(broker)["code"] == "manifest_not_found"
    assert allowlist(broker) == ["A", "B"]
    assert broker.get("A")["value"] == "a"
    make_project(project, "C")
    obstacle = broker.state / "registrations.json.new"
    obstacle.mkdir()
    assert reload(broker)["reason"] == "state_unwritable"
    assert allowlist(broker) == ["A", "B"]
    assert broker.records("manifest.reloaded") == []


def test_a_reload_that_changes_nothing_writes_nothing(broker: Broker, project: pathlib.Path) -> None:
    register(broker, project)
    (broker.state / "registrations.json.new").mkdir()  # any write would fail
    assert reload(broker) == {"ok": True, "allowlist": ["A", "B"]}
    assert len(broker.records("manifest.reloaded")) == 1
    make_project(project, "B", "A")  # another order changes the reply to `info`
    assert reload(broker)["reason"] == "state_unwritable"


def test_a_hangup_reloads_all_manifests(broker: Broker, directory: pathlib.Path) -> None:
    good, bad = (make_project(directory / name, "A", "B") for name in ("good", "bad"))
    register(broker, good)
    register(broker, bad, allowed_uids=[os.getuid()])
    make_project(good, "B")
    make_project(bad, "B-")
    broker.signal(signal.SIGHUP)
    poll("the reload", lambda: allowlist(broker, "good") == ["B"])
    (note,) = poll("the log", broker.notes)
    assert "bad" in note
    assert "allowlist" in note
    assert allowlist(broker, "bad") == ["A", "B"]
    make_project(bad, "A")
    broker.signal(signal.SIGHUP)
    poll("the reload", lambda: allowlist(broker, "bad") == ["A"])
    assert broker.ask({"op": "show", "name": "bad"})["allowed_uids"] == [os.getuid()]


@pytest.mark.parametrize("later", ["reload", "hangup"])
def test_the_later_of_two_reloads_takes_effect(start_broker: StartBroker, directory: pathlib.Path, later: str) -> None:
    """Even if the earlier one's manifest takes longer to validate."""
    broker = start_broker(environment=slow_parser(directory))
    project = make_project(directory / "myrepo", "FIRST")
    register(broker, project)
    with Link(broker.admin) as operator:
        for _ in range(5):  # on a busy machine a reader may miss its deadline
            make_project(project, "SLOW", "QUICK", "LATER")
            operator.send({"op": "reload", "name": "myrepo"})
            poll("the reader", lambda: a_reader_is_slow(broker))
            make_project(project, "QUICK", "LATER")
            second = {"ok": True}
            if later == "hangup":
                broker.signal(signal.SIGHUP)
            else:
                second = broker.ask({"op": "reload", "name": "myrepo"})
                assert second.get("allowlist", ["QUICK", "LATER"]) == ["QUICK", "LATER"]
            if operator.reply()["ok"] and second["ok"]:
                break
        poll("the later one", lambda: broker.records("manifest.reloaded", allowlist_size="2"))
    assert allowlist(broker) == ["QUICK", "LATER"]


def test_a_hangup_during_a_reload_reads_all_once_more(start_broker: StartBroker, directory: pathlib.Path) -> None:
    broker = start_broker(environment=slow_parser(directory))
    done, under_way = (make_project(directory / name, "FIRST", "SECOND") for name in ("a", "b"))
    register(broker, done)
    register(broker, under_way)
    make_project(under_way, "SECOND", "SLOW")
    broker.signal(signal.SIGHUP)
    poll("the reader", lambda: a_reader_is_slow(broker))
    make_project(done, "SECOND")
    make_project(under_way, "SECOND")
    broker.signal(signal.SIGHUP)
    poll("the second", lambda: allowlist(broker, "a") == allowlist(broker, "b") == ["SECOND"])


def test_a_hangup_during_a_reload_also_reads_the_credential_rules_again(
    start_broker: StartBroker, directory: pathlib.Path
) -> None:
    config = directory / "config.toml"
    config.write_text('[credentials."a.service"]\nx = "X"\n')
    broker = start_broker(environment=slow_parser(directory), flags=("--config", str(config)))
    project = make_project(directory / "myrepo", "FIRST", "SECOND")
    register(broker, project)
    make_project(project, "SECOND", "SLOW")
    broker.signal(signal.SIGHUP)
    poll("the reader", lambda: a_reader_is_slow(broker))
    config.write_text("")
    make_project(project, "SECOND")
    broker.signal(signal.SIGHUP)
    poll("the second", lambda: allowlist(broker) == ["SECOND"])
    assert broker.ask({"op": "explain-unit", "unit": "a.service"})["rules"] == 0
