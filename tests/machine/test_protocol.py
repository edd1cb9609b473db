"""Every operation through the real units, as used by the sidecar, the operator and the projects'
tools."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.operator import ADMIN

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

BINARY = base64.b64encode(bytes(range(256))).decode()


def test_a_project_fetches_what_its_manifest_names(machine: Machine, operator: Operator) -> None:
    operator.register("app", ["TOKEN", "aws", "KEYSTORE", "LATER"])
    pushed = operator.push(
        {"TOKEN": "ghp_ü\n", "aws": {"id": "AKIA", "key": "s3cr3t"}, "OTHER": "not for app"}, {"KEYSTORE": BINARY}
    )
    assert (pushed["secret_count"], pushed["generation"]) == (4, 1)

    string = operator.get("app", "TOKEN")
    assert string == {"ok": True, "value": "ghp_ü\n", "ttl_seconds": string["ttl_seconds"], "generation": 1}
    assert 0 < string["ttl_seconds"] <= 900
    bundle = operator.get("app", "aws")
    assert bundle["value"] == '{"id":"AKIA","key":"s3cr3t"}'  # a string that holds JSON, its fields as they were pushed
    binary = operator.get("app", "KEYSTORE")
    assert binary["value_b64"] == BINARY
    assert "value" not in binary

    for name in ("OTHER", "NOWHERE"):
        denied = operator.get("app", name)
        assert (denied["code"], denied["reason"]) == ("denied", "not_in_manifest")
    invalid = operator.get("app", "no such name")
    assert (invalid["code"], invalid["reason"]) == ("denied", "invalid_name")
    missing = operator.get("app", "LATER")
    assert (missing["code"], missing["reason"]) == ("not_found", "not_in_snapshot")

    operator.push({"LATER": "now"})
    assert operator.get("app", "LATER")["value"] == "now"
    assert operator.get("app", "TOKEN")["reason"] == "not_in_snapshot"  # a push replaces everything
    operator.do("clear-creds")
    cleared = operator.get("app", "LATER")
    assert (cleared["code"], cleared["reason"], cleared["retry_after_seconds"]) == ("not_found", "no_snapshot", 1)


def test_ping_and_info(machine: Machine, operator: Operator) -> None:
    path = operator.register("app", ["B", "A"])
    assert machine.ask(path, {"op": "ping"}) == {
        "ok": True,
        "broker_version": "2.0.0",
        "protocol_version": 2,
        "project": "app",
    }
    expected = {"ok": True, "project": "app", "allowlist": ["B", "A"], "schema_version": 1}
    assert machine.ask(path, {"op": "info"}).items() >= expected.items()


def test_projects_do_not_see_each_other(operator: Operator) -> None:
    operator.register("one", ["ONE", "BOTH"])
    operator.register("two", ["TWO", "BOTH"])
    operator.push({"ONE": "1", "TWO": "2", "BOTH": "12"})
    assert operator.get("one", "ONE")["value"] == "1"
    assert operator.get("two", "BOTH")["value"] == "12"
    foreign, absent = operator.get("one", "TWO"), operator.get("one", "XXX")
    assert foreign["code"] == "denied"
    # The same answer whether the broker holds such a secret or not.
    assert json.dumps(foreign).replace("TWO", "XXX") == json.dumps(absent)


def test_reload_and_unregister(machine: Machine, operator: Operator) -> None:
    path = operator.register("app", ["OLD"])
    operator.push({"OLD": "o", "NEW": "n"})
    with machine.connect(path) as client, client.makefile("rb") as answers:

        def get(name: str) -> dict[str, object]:
            client.sendall(json.dumps({"op": "get", "name": name}).encode() + b"\n")
            answer: dict[str, object] = json.loads(answers.readline())
            return answer

        operator.manifest("app", ["NEW"])
        assert get("NEW")["code"] == "denied"  # an edit changes nothing until an operator reloads
        assert operator.do("reload", name="app")["allowlist"] == ["NEW"]
        assert get("NEW")["value"] == "n"
        machine.write("/home/dev/projects/app/.devcontainer/remo-broker.toml", "schema_version = 2\n")
        failed = operator.ask("reload", name="app")
        assert failed["code"] == "manifest_invalid"
        assert "schema_version" in failed["message"]
        assert get("NEW")["value"] == "n"
        operator.do("unregister", name="app")
    with pytest.raises(FileNotFoundError):
        machine.connect(path)
    assert operator.ask("unregister", name="app")["code"] == "project_unknown"
    assert operator.do("status")["projects"] == []


def test_register_names_the_fault(machine: Machine, operator: Operator) -> None:
    operator.register("app", ["A"])
    again = operator.ask("register", name="app", project_path="/home/dev/projects/app")
    assert again["code"] == "project_exists"
    machine.run(["mkdir", "-p", "/srv/empty"])
    assert operator.ask("register", name="empty", project_path="/srv/empty")["code"] == "manifest_not_found"
    for name in ("admin", "status"):
        assert operator.ask("register", name=name, project_path=f"/srv/{name}")["ok"] is False


@pytest.mark.parametrize("parent", ["/home/dev", "/tmp", "/var/tmp", "/srv", "/root/open", "/opt/a/b"])
def test_projects_may_be_anywhere(machine: Machine, operator: Operator, parent: str) -> None:
    if parent.startswith("/root"):
        machine.run(["chmod", "0711", "/root"])
    directory = operator.manifest("there", ["A"], parent=parent)
    try:
        assert operator.do("register", name="there", project_path=directory)["ok"] is True
    finally:
        machine.run(["rm", "-r", directory])  # other tests check what is left on the machine


def test_the_error_for_a_closed_home_names_the_directory(machine: Machine, operator: Operator) -> None:
    directory = operator.manifest("closed", ["A"], parent="/home/closed")
    machine.run(["chmod", "0700", "/home/closed"])
    refused = operator.ask("register", name="closed", project_path=directory)
    assert refused["code"] == "manifest_unreadable"
    assert "remo-broker" in refused["message"]  # the user who may not


def test_errors_leave_the_connection_open(machine: Machine, operator: Operator) -> None:
    path = operator.register("app", ["A"])
    lines = [b"x", b"[]", b'{"op":"rotate-bootstrap"}', b'{"op":"get"}', b'{"op":"ping","op":"ping"}', b"\xff"]
    with machine.connect(path) as client, client.makefile("rb") as answers:
        for line in lines:
            client.sendall(line + b"\n")
            assert json.loads(answers.readline())["code"] == "protocol_error", line
        client.sendall(b'{"op":"ping"}\n')
        assert json.loads(answers.readline())["ok"] is True
    with machine.connect(ADMIN) as client, client.makefile("rb") as answers:
        client.sendall(b'{"op":"push-creds","secrets":{"A":"' + b"a" * (1 << 20) + b'"}}\n')
        assert json.loads(answers.readline())["code"] == "payload_too_large"
        assert answers.readline() == b""


def test_a_push_of_a_megabyte(operator: Operator) -> None:
    secrets: dict[str, str | dict[str, str]] = {f"S{number:04}": "v" * 1000 for number in range(1000)}
    assert operator.push(secrets)["secret_count"] == 1000
