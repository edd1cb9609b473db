"""register and unregister with real manifests."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.broker import Broker, Link, ask, listen
from tests.support.machine import poll
from tests.support.projects import allowlist, make_project, register

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.broker import Reply


# --- register


def test_a_project_is_live_at_once(broker: Broker, project: pathlib.Path) -> None:
    broker.push({"A": "a", "C": "c"})
    assert register(broker, project) == {"ok": True, "socket_path": str(broker.project())}
    assert broker.get("A")["value"] == "a"
    assert broker.get("C")["reason"] == "not_in_manifest"
    mode = broker.project().stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    shown = broker.ask({"op": "show", "name": "myrepo"})
    assert (shown["project_path"], shown["allowlist"]) == (str(project), ["A", "B"])
    assert (shown["ttl_seconds"], shown["max_entries"], shown["allowed_uids"]) == (900, 64, [])


def test_a_project_has_a_socket_to_be_mounted(broker: Broker, project: pathlib.Path) -> None:
    """Any process with the directory mounted may use it, such as a container's."""
    broker.push({"A": "a"})
    register(broker, project)
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (broker.mount(), *broker.mount().parents[:2])]
    assert modes == [0o666, 0o755, 0o750]
    assert ask(broker.mount(), {"op": "get", "name": "A"})["value"] == "a"


def test_a_mounted_directory_follows_its_project(broker: Broker, project: pathlib.Path) -> None:
    """Registered again from the same directory, it shows the new socket; another directory gets a
    new mount directory."""
    register(broker, project)
    mounted = os.open(broker.mount().parent, os.O_PATH)
    try:
        inside = f"/proc/self/fd/{mounted}/broker.sock"
        for _ in range(2):
            assert ask(inside, {"op": "ping"})["ok"]
            assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
            assert not os.path.exists(inside)
            register(broker, project)
        broker.ask({"op": "unregister", "name": "myrepo"})
        register(broker, make_project(project.parent / "other" / "myrepo", "A"))
        assert ask(broker.mount(), {"op": "ping"})["ok"]
        assert not os.path.exists(inside)
        broker.ask({"op": "unregister", "name": "myrepo"})
        register(broker, project)
        assert not os.path.exists(inside)
    finally:
        os.close(mounted)


def test_the_manifests_cache_limits_apply(broker: Broker, directory: pathlib.Path) -> None:
    broker.push({"A": "a"})
    assert register(broker, make_project(directory / "myrepo", "A", ttl_seconds=7, max_entries=3))["ok"]
    assert broker.get("A")["ttl_seconds"] == 7
    assert broker.ask({"op": "show", "name": "myrepo"})["max_entries"] == 3
    wider = register(broker, make_project(directory / "wide", "A", ttl_seconds=901))
    assert wider["code"] == "manifest_invalid"
    assert "ttl_seconds" in wider["message"]


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"name": ""}, "protocol_error", "invalid_name"),
        ({"name": "MyRepo"}, "protocol_error", "invalid_name"),
        ({"name": "-a"}, "protocol_error", "invalid_name"),
        ({"name": "../admin"}, "protocol_error", "invalid_name"),
        ({"name": "a" * 65}, "protocol_error", "invalid_name"),
        ({"name": "a\n"}, "protocol_error", "invalid_name"),
        ({"name": "admin"}, "project_exists", "name_taken"),
        ({"name": "status"}, "project_exists", "name_taken"),
        ({"name": "broker"}, "project_exists", "name_taken"),
        ({"project_path": "myrepo"}, "protocol_error", "bad_value"),
        ({"project_path": ""}, "protocol_error", "bad_value"),
        ({"project_path": "~/myrepo"}, "protocol_error", "bad_value"),
        ({"project_path": "/a\0b"}, "protocol_error", "bad_value"),
        ({"project_path": "/" + "a" * 4096}, "protocol_error", "bad_value"),
        ({"allowed_uids": [2**32 - 1]}, "protocol_error", "bad_value"),
        ({"allowed_uids": list(range(65))}, "protocol_error", "bad_value"),
        ({"allowed_uids": ["root"]}, "protocol_error", "wrong_type"),
        ({"project_path": "/nonexistent/myrepo"}, "manifest_not_found", None),
    ],
)
def test_registrations_that_are_refused(shared: Broker, fields: dict[str, Any], code: str, reason: str | None) -> None:
    with Link(shared.admin) as operator:
        request = {"op": "register", "name": "another", "project_path": "/projects/another"} | fields
        refusal = operator.ask(request)
        assert (refusal["ok"], refusal["code"], refusal.get("reason")) == (False, code, reason)
        assert operator.ask({"op": "status"})["project_count"] == 1
    sockets = [path for path in shared.sockets.rglob("*") if path.is_socket()]
    assert sorted(path.name for path in sockets) == ["admin.sock", "broker.sock", "myrepo.sock", "status.sock"]


def test_manifests_that_fail(broker: Broker, directory: pathlib.Path) -> None:
    def refused(content: bytes | None, kind: str = "file") -> Reply:
        path = directory / "myrepo"
        shutil.rmtree(path, ignore_errors=True)
        place = path / ".devcontainer" / "remo-broker.toml"
        place.parent.mkdir(parents=True)
        if kind == "directory":
            place.mkdir()
        elif kind == "fifo":
            os.mkfifo(place)
        elif kind == "symlink":
            place.symlink_to("/etc/passwd")
        elif content is not None:
            place.write_bytes(content)
        reply = register(broker, path)
        assert not reply["ok"]
        assert "\n" not in reply["message"]
        return reply

    assert refused(None)["code"] == "manifest_not_found"
    for kind in ("directory", "fifo", "symlink"):
        assert refused(b"", kind)["code"] == "manifest_unreadable"
    hidden = b'[allowlist]\nsecrets = ["zqMarkerqz-"]\n'
    reply = refused(b'schema_version = 1\n[project]\nname = "myrepo"\n' + hidden)
    assert reply["code"] == "manifest_invalid"
    assert "allowlist" in reply["message"]
    assert "zqMarkerqz" not in json.dumps(broker.records())
    assert refused(b"schema_version = 7")["code"] == "manifest_invalid"
    other = refused(b'schema_version = 1\n[project]\nname = "other"\n[allowlist]\nsecrets = []\n')
    assert other["code"] == "manifest_invalid"
    assert broker.status()["project_count"] == 0
    assert not broker.project().exists()
    invalid = broker.records("manifest.invalid")
    assert [one["REMO_REASON"] for one in invalid] == [
        "manifest_not_found",
        *["manifest_unreadable"] * 3,
        *["manifest_invalid"] * 3,
    ]
    assert {one["PRIORITY"] for one in invalid} == {"4"}


def test_a_project_is_registered_once(broker: Broker, project: pathlib.Path) -> None:
    assert register(broker, project)["ok"]
    again = register(broker, project)
    assert (again["code"], again.get("reason")) == ("project_exists", None)
    assert "reload" in again["message"]


def test_concurrent_registrations(broker: Broker, directory: pathlib.Path) -> None:
    """Three operators register two projects, one of them twice."""
    paths = [make_project(directory / f"p{number}", f"N{number}") for number in range(2)]
    replies: list[Reply] = []

    def one(path: pathlib.Path) -> None:
        replies.append(register(broker, path))

    threads = [threading.Thread(target=one, args=[path]) for path in [*paths, paths[0]]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(reply.get("code")) for reply in replies) == ["None", "None", "project_exists"]
    assert [allowlist(broker, f"p{number}") for number in range(2)] == [["N0"], ["N1"]]
    stored = json.loads((broker.state / "registrations.json").read_text())
    assert [entry["name"] for entry in stored["projects"]] == ["p0", "p1"]


def test_projects_do_not_see_each_other(broker: Broker, directory: pathlib.Path) -> None:
    broker.push({"A": "a", "B": "b"})
    register(broker, make_project(directory / "one", "A"))
    register(broker, make_project(directory / "two", "B"))
    assert (broker.get("A", "one")["value"], broker.get("B", "two")["value"]) == ("a", "b")
    assert broker.get("B", "one")["reason"] == broker.get("A", "two")["reason"] == "not_in_manifest"
    assert (allowlist(broker, "one"), allowlist(broker, "two")) == (["A"], ["B"])


def test_a_dead_socket_at_the_path_is_replaced_and_a_live_one_is_not(broker: Broker, project: pathlib.Path) -> None:
    with listen(broker.project()):
        refusal = register(broker, project)
        assert (refusal["code"], refusal["reason"]) == ("internal_error", "socket_unavailable")
        assert str(broker.project()) in refusal["message"]
        assert broker.status()["project_count"] == 0
    assert register(broker, project)["ok"]
    assert allowlist(broker) == ["A", "B"]


def test_a_file_at_the_path_is_not_touched(broker: Broker, project: pathlib.Path) -> None:
    broker.project().write_text("kept")
    assert register(broker, project)["reason"] == "socket_unavailable"
    assert broker.project().read_text() == "kept"


@pytest.mark.parametrize("asks", [True, False], ids=["asked again", "by itself"])
def test_a_project_loses_its_socket_even_if_that_cannot_be_saved(
    broker: Broker, project: pathlib.Path, asks: bool
) -> None:
    """It may be what fills the disk."""
    broker.push({"A": "a"})
    register(broker, project)
    (broker.state / "registrations.json.new").mkdir()

    def registered() -> list[object]:
        found: list[object] = json.loads((broker.state / "registrations.json").read_text())["projects"]
        return found

    with Link(broker.project()) as connected:
        assert connected.ask({"op": "get", "name": "A"})["ok"]
        refusal = broker.ask({"op": "unregister", "name": "myrepo"})
        assert (refusal["code"], refusal["reason"]) == ("internal_error", "state_unwritable")
        assert "after a restart" in refusal["message"]
        with pytest.raises((EOFError, ConnectionError)):
            connected.ask({"op": "get", "name": "A"})
    assert not broker.project().exists()
    assert (broker.status()["project_count"], broker.status()["unsaved"]) == (0, ["myrepo"])
    again = broker.ask({"op": "unregister", "name": "myrepo"})
    assert again["reason"] == "state_unwritable"
    (broker.state / "registrations.json.new").rmdir()
    if asks:
        answer = broker.ask({"op": "unregister", "name": "myrepo"})
        # The broker may have been faster.
        assert answer["ok"] or answer["code"] == "project_unknown"
        assert registered() == []
        assert broker.ask({"op": "unregister", "name": "myrepo"})["code"] == "project_unknown"
    poll("the broker to save it", lambda: registered() == [])
    poll("status to know", lambda: "unsaved" not in broker.status())


@pytest.mark.parametrize("waits", ["alone", "behind another request"])
def test_a_busy_disk_keeps_no_project_served(broker: Broker, project: pathlib.Path, waits: str) -> None:
    """It may be what keeps it busy. A FIFO that nobody reads takes as long as such a disk."""
    broker.push({"A": "a"})
    register(broker, project)
    other = make_project(project.parent / "other", "A")
    fifo = broker.state / "registrations.json.new"
    os.mkfifo(fifo)
    with Link(broker.project()) as connected, Link(broker.admin) as first, Link(broker.admin) as operator:
        if waits != "alone":
            first.send({"op": "register", "name": "other", "project_path": str(other)})
            poll("the other socket", broker.mount("other").exists)
        operator.send({"op": "unregister", "name": "myrepo"})
        assert connected.rest() == b""
        if waits != "alone":
            assert broker.get("A")["reason"] == "not_registered"
        else:
            poll("the socket to be removed", lambda: not broker.project().exists())
            assert (broker.status()["project_count"], broker.status()["unsaved"]) == (0, ["myrepo"])
        disk = os.open(fifo, os.O_RDWR)
        try:
            assert operator.reply()["reason"] == "state_unwritable"  # nothing syncs a FIFO
            fifo.unlink()
        finally:
            os.close(disk)
    assert not broker.project().exists()
    broker.ask({"op": "unregister", "name": "myrepo"})  # the broker may have saved it before
    assert "unsaved" not in broker.status()


@pytest.mark.parametrize("full", [False, True], ids=["room again", "still full"])
def test_a_stop_tries_once_more_to_save_what_was_unregistered(
    broker: Broker, project: pathlib.Path, full: bool
) -> None:
    register(broker, project)
    obstacle = broker.state / "registrations.json.new"
    obstacle.mkdir()
    assert broker.ask({"op": "unregister", "name": "myrepo"})["reason"] == "state_unwritable"
    if not full:
        obstacle.rmdir()
    broker.stop()
    stored = json.loads((broker.state / "registrations.json").read_text())["projects"]
    said = [one for one in broker.notes() if "myrepo" in one and "next start" in one]
    assert (len(stored), len(said)) == (int(full), int(full))


def test_a_registration_that_cannot_be_saved_is_refused(broker: Broker, project: pathlib.Path) -> None:
    obstacle = broker.state / "registrations.json.new"
    obstacle.mkdir()
    refusal = register(broker, project)
    assert (refusal["code"], refusal["reason"]) == ("internal_error", "state_unwritable")
    assert str(broker.state) in refusal["message"]
    assert broker.status()["project_count"] == 0
    assert not broker.project().exists()
    obstacle.rmdir()
    assert register(broker, project)["ok"]


# --- register with replace


def test_containers_of_another_directory_lose_the_socket(broker: Broker, project: pathlib.Path) -> None:
    """Another directory is another project: those of the former one get nothing of it."""
    broker.push({"A": "a", "C": "c"})
    register(broker, project)
    mounted = os.open(broker.mount().parent, os.O_PATH)
    file = os.open(broker.mount(), os.O_PATH)
    other = make_project(project.parent / "other" / "myrepo", "C")
    try:
        with Link(broker.project()) as connected:
            assert connected.ask({"op": "get", "name": "A"})["ok"]
            assert register(broker, other, replace=True)["ok"]
            with pytest.raises((EOFError, ConnectionError)):
                connected.ask({"op": "get", "name": "C"})
        with pytest.raises(ConnectionRefusedError):
            ask(f"/proc/self/fd/{file}", {"op": "get", "name": "C"})
        assert not os.path.exists(f"/proc/self/fd/{mounted}/broker.sock")
    finally:
        os.close(mounted)
        os.close(file)
    assert (broker.get("A")["reason"], broker.get("C")["value"]) == ("not_in_manifest", "c")
    assert ask(broker.mount(), {"op": "get", "name": "C"})["value"] == "c"
    assert [one["REMO_PROJECT"] for one in broker.records("project.unregistered")] == ["myrepo"]


def test_users_that_lose_access_get_nothing_that_is_allowed_since(broker: Broker, project: pathlib.Path) -> None:
    broker.push({"A": "a", "C": "c"})
    register(broker, project)
    with Link(broker.project()) as asking, Link(broker.project()) as watching:
        watching.ask({"op": "watch"})
        asking.send(b'{"op":"get","name":"C"}')  # answered when the broker closes: the line may end there
        make_project(project, "A", "C")
        register(broker, project, replace=True, allowed_uids=[os.getuid() + 1])
        assert asking.reply()["reason"] == "not_in_manifest"
        assert watching.rest() == b""
    assert broker.get("C")["code"] == "peer_unexpected"


# --- unregister


@pytest.mark.parametrize("ended_by", ["unregister", "register"])
def test_who_lost_access_gets_nothing_that_is_pushed_since(
    start_broker: StartBroker, project: pathlib.Path, ended_by: str
) -> None:
    """A client that sent gets before that, and reads slowly: after a rotation they are not answered with the new
    values."""
    broker = start_broker(rate_limit_per_second=0)
    register(broker, project)
    broker.push({"A": "old" * 10_000})
    with Link(broker.project()) as client:
        client.send(b'{"op":"get","name":"A"}\n' * 100)  # more than is read at a time
        client.line()
        if ended_by == "unregister":
            assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
        else:
            assert register(broker, project, replace=True, allowed_uids=[os.getuid() + 1])["ok"]
        broker.push({"A": "fresh"})
        assert b"fresh" not in client.rest()


def test_unregistering(broker: Broker, project: pathlib.Path) -> None:
    register(broker, project)
    broker.push({"A": "a"})
    with Link(broker.project()) as idle, Link(broker.project()) as half:
        assert idle.ask({"op": "get", "name": "A"})["ok"]
        half.send(b'{"op":"get",')
        assert broker.ask({"op": "unregister", "name": "myrepo"}) == {"ok": True}
        assert idle.rest() == b""
        half.rest()
    assert not broker.project().exists()
    assert broker.status()["projects"] == []
    assert json.loads((broker.state / "registrations.json").read_text())["projects"] == []
    (record,) = broker.records("project.unregistered")
    assert (record["REMO_PROJECT"], record["PRIORITY"]) == ("myrepo", "5")
    assert register(broker, project)["ok"]
    assert broker.get("A")["ttl_seconds"] == 900
    assert broker.records("fetch")[-1]["REMO_BACKEND"] == "store"  # the lease was forgotten


def test_requests_in_flight_are_answered(broker: Broker, project: pathlib.Path) -> None:
    """Gets with unread replies, more than the kernel buffers; then unregister, then the replies."""
    register(broker, project)
    broker.push({"A": "a" * 1000})
    with Link(broker.project()) as client:
        client.send(b'{"op":"get","name":"A"}\n' * 900)
        assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
        assert client.rest().count(b'"value":"aaa') == 900


@pytest.mark.parametrize("op", ["unregister", "reload", "show"])
def test_an_unknown_project(shared: Broker, op: str) -> None:
    with Link(shared.admin) as operator:
        for name in ("nobody", "", "admin", "MyRepo", "é" * 100):
            assert operator.ask({"op": op, "name": name})["code"] == "project_unknown"
