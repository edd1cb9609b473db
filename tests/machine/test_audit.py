"""The audit in the journal: one entry for each get, with its fields, and no value anywhere."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from tests.support.machine import poll
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

# Random each time, so that neither this file nor an earlier run's output is found in its place.
VALUE = f"value-{secrets.token_hex(16)}"


def test_one_entry_for_each_get(machine: Machine, operator: Operator) -> None:
    operator.register("audited", ["TOKEN", "LATER"])
    operator.push({"TOKEN": VALUE})
    member = operator.member()
    for name in ("TOKEN", "TOKEN", "LATER", "FOREIGN", "no name\x1b[31m"):
        operator.get("audited", name, user=member)
    uid, gid = machine.ids(member)

    entries = machine.journal("REMO_EVENT=fetch", "REMO_PROJECT=audited")

    outcome = [
        (e["REMO_SECRET"], e["REMO_DECISION"], e["REMO_OUTCOME"], e.get("REMO_BACKEND"), e["PRIORITY"]) for e in entries
    ]
    assert outcome == [
        ("TOKEN", "allow", "ok", "store", "6"),
        ("TOKEN", "allow", "ok", "cache", "6"),
        ("LATER", "allow", "not_found", "store", "6"),
        ("FOREIGN", "deny", "denied", None, "4"),
        ("no name\\x1b[31m", "deny", "denied", None, "4"),
    ]
    assert [e["REMO_REASON"] for e in entries][2:] == ["not_in_snapshot", "not_in_manifest", "invalid_name"]
    for entry in entries:
        assert entry["_SYSTEMD_UNIT"] == SERVICE
        assert entry["SYSLOG_IDENTIFIER"] == "remo-broker"
        assert entry["REMO_GENERATION"] == "1"
        assert int(entry["REMO_LATENCY_USEC"]) >= 0
        assert (entry["REMO_PEER_UID"], entry["REMO_PEER_GID"]) == (str(uid), str(gid))
        assert int(entry["REMO_PEER_PID"]) > 1
    assert len({entry["REMO_PEER_PID"] for entry in entries}) == 5
    assert len({entry["MESSAGE_ID"] for entry in entries}) == 1


def test_ping_info_and_malformed_requests_are_not_fetches(machine: Machine, operator: Operator) -> None:
    path = operator.register("quiet", ["TOKEN"])
    requests: list[object] = [{"op": "ping"}, {"op": "info"}, {"op": "get"}, {"op": "nonsense"}, []]
    for request in requests:
        machine.ask(path, request)
    assert machine.journal("REMO_EVENT=fetch", "REMO_PROJECT=quiet") == []


def test_operators_actions_are_recorded(machine: Machine, operator: Operator) -> None:
    operator.register("steps", ["TOKEN"])
    operator.push({"TOKEN": VALUE})
    operator.do("clear-creds")
    operator.do("reload", name="steps")
    machine.write("/home/dev/projects/steps/.devcontainer/remo-broker.toml", "schema_version = [\n")
    operator.ask("reload", name="steps")
    operator.do("unregister", name="steps")
    pid = operator.main_pid()
    machine.systemctl("stop", SERVICE)
    events = [entry["REMO_EVENT"] for entry in machine.journal(f"_PID={pid}") if "REMO_EVENT" in entry]
    events = [event for event in events if event != "audit.probe"]  # a probe may come at any time
    assert events == [
        "broker.started",
        "project.registered",
        "secrets.pushed",
        "secrets.cleared",
        "manifest.reloaded",
        "manifest.invalid",
        "project.unregistered",
        "broker.stopped",
    ]


def test_the_catalog_explains_each_event(machine: Machine, operator: Operator) -> None:
    operator.register("explained", ["TOKEN"])
    operator.get("explained", "FOREIGN")
    machine.run(["journalctl", "--sync"])
    plain = machine.run(["journalctl", "-b", "REMO_PROJECT=explained", "REMO_DECISION=deny", "--no-pager"]).stdout
    explained = machine.run(
        ["journalctl", "-x", "-b", "REMO_PROJECT=explained", "REMO_DECISION=deny", "--no-pager"]
    ).stdout
    assert "FOREIGN" in plain
    added = [line for line in explained.splitlines() if line.startswith("░░")]
    assert any("explained" in line or "FOREIGN" in line for line in added), explained
    assert any("remo-broker" in line for line in added), explained


def test_no_value_is_anywhere_on_the_machine(machine: Machine, operator: Operator) -> None:
    """Neither in any field of the journal's entries, nor in any file that was written."""
    operator.register("silent", ["TOKEN", "bundle", "binary"])
    encoded = base64.b64encode(VALUE.encode()).decode()
    operator.push({"TOKEN": VALUE, "bundle": {"field": VALUE}}, {"binary": encoded})
    for name in ("TOKEN", "bundle", "binary", "FOREIGN"):
        operator.get("silent", name)
    # Refused requests, whose errors have messages.
    operator.ask("push-creds", secrets={"bad name": VALUE})
    operator.ask("push-creds", secrets={"TOKEN": [VALUE]})
    operator.ask("nonsense", value=VALUE)
    machine.systemctl("status", SERVICE)
    machine.systemctl("restart", SERVICE)
    machine.run(["journalctl", "--sync"])
    printed = machine.run(["journalctl", "--no-pager", "--all", "-o", "export"]).stdout
    assert "silent" in printed
    for text in (VALUE, encoded):
        assert text not in printed
        assert machine.files_with(text) == []


def test_the_journal_keeps_a_flood_of_records(machine: Machine, operator: Operator) -> None:
    """journald would drop records beyond its default rate limit; the unit lifts that."""
    operator.configure("rate_limit_per_second = 0\n")
    path = operator.register("flood", ["TOKEN"])
    asked = 30_000  # the default: 10,000 in 30 seconds
    line = b'{"op":"get","name":"FOREIGN"}\n'
    with machine.connect(path) as client, client.makefile("rb") as answers:
        for _ in range(asked // 100):
            client.sendall(line * 100)
            for _ in range(100):
                answers.readline()
    machine.run(["journalctl", "--sync"])
    printed = machine.run(["journalctl", "-b", "REMO_PROJECT=flood", "REMO_EVENT=fetch", "--no-pager", "-o", "cat"])
    assert len(printed.stdout.splitlines()) == asked


def test_long_names_on_a_socket_that_is_not_registered_fill_no_journal(machine: Machine, operator: Operator) -> None:
    machine.systemctl("start", "remo-broker-client@nobodys.socket")
    code = (
        "import json, socket, sys\n"
        "for number in range(100):\n"
        "    with socket.socket(socket.AF_UNIX) as peer:\n"
        "        peer.connect(sys.argv[1])\n"
        "        peer.sendall(json.dumps({'op': 'get', 'name': f'{number:0128}'}).encode() + b'\\n')\n"
        "        assert b'not_registered' in peer.recv(65536)\n"
    )
    machine.run(["/usr/bin/python3", "-ISc", code, operator.socket("nobodys")])

    def entries(event: str) -> list[dict[str, str]]:
        return machine.journal(f"REMO_EVENT={event}", "REMO_PROJECT=nobodys")

    def counted() -> int:
        return sum(int(one["REMO_COUNT"]) for one in entries("fetch.denials_counted"))

    poll("all to be recorded", lambda: len(entries("fetch")) + counted() == 100)
    assert len(entries("fetch")) < 30
