"""Health depends on what the journal stores, not on what its socket accepts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.machine.faults import journald
from tests.support.loading import RULES, fails, unit
from tests.support.machine import poll
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine
    from tests.support.operator import Operator

_JOURNALD = "/etc/systemd/journald.conf.d/drops.conf"
_UNIT = f"/etc/systemd/system/{SERVICE}.d/drops.conf"


@contextlib.contextmanager
def dropping(machine: Machine, setting: str) -> Iterator[None]:
    """journald drops records of fetches, by one of its settings or the unit's."""
    path, section = (_UNIT, "Service") if setting.startswith("Log") else (_JOURNALD, "Journal")
    machine.write(path, f"[{section}]\n{setting}\n")
    if path == _UNIT:
        machine.systemctl("daemon-reload")
    else:
        journald.restart(machine)
    try:
        yield
    finally:
        machine.path(path).unlink()
        machine.systemctl("stop", SERVICE)
        machine.systemctl("daemon-reload")
        if path == _JOURNALD:
            journald.restart(machine)


@pytest.mark.parametrize("setting", ["MaxLevelStore=notice", "Storage=none", "LogLevelMax=notice"])
def test_unstored_records_are_reported_and_no_secret_is_handed_out(
    machine: Machine, operator: Operator, setting: str
) -> None:
    operator.configure('audit_failure = "deny"\n')
    with dropping(machine, setting):
        operator.register("kept", ["TOKEN"])
        operator.push({"TOKEN": "value"})
        # Even before it knows.
        assert operator.get("kept", "TOKEN")["reason"] == "audit_unavailable"
        poll("the trouble to be found", lambda: operator.do("status")["audit"].get("reason") == "not_stored")
        assert operator.do("status")["audit"]["healthy"] is False
        for _ in range(3):
            assert operator.get("kept", "TOKEN")["reason"] == "audit_unavailable"
        assert "does not store" in machine.run(["remo-brokerctl", "status"]).stdout
        poll("systemd to hear of it", lambda: "does not store" in machine.show(SERVICE, "StatusText")["StatusText"])
        assert operator.get("kept", "OTHER")["reason"] == "not_in_manifest"


def test_a_unit_gets_no_secret_whose_record_is_not_stored(machine: Machine, host: Operator) -> None:
    host.configure('audit_failure = "deny"\ncredentials_wait_seconds = 1\n' + RULES)
    with dropping(machine, "MaxLevelStore=notice"):
        host.push({"PASSWORD": "value"})
        poll("the trouble to be found", lambda: host.do("status")["audit"].get("reason") == "not_stored")
        unit(machine, "load@unstored.service", "password")
        fails(machine, "load@unstored.service", "audit_unavailable")


def test_with_a_journal_that_stores_the_audit_is_healthy(machine: Machine, operator: Operator) -> None:
    operator.configure('audit_failure = "deny"\n')
    operator.register("kept", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    poll("a secret", lambda: operator.get("kept", "TOKEN").get("ok"))
    assert operator.do("status")["audit"]["healthy"] is True
    [probe] = machine.journal("REMO_EVENT=audit.probe", f"_PID={operator.main_pid()}")
    assert probe["PRIORITY"] == "6"


def test_it_recovers_when_the_journal_stores_again(machine: Machine, operator: Operator) -> None:
    operator.configure('audit_failure = "deny"\n')
    with contextlib.ExitStack() as stack:
        machine.write(_JOURNALD, "[Journal]\nMaxLevelStore=notice\n")
        journald.restart(machine)
        stack.callback(journald.restart, machine)
        operator.register("kept", ["TOKEN"])
        operator.push({"TOKEN": "value"})
        poll("the trouble to be found", lambda: operator.do("status")["audit"].get("reason") == "not_stored")
        machine.path(_JOURNALD).unlink()
    poll("a secret", lambda: operator.get("kept", "TOKEN").get("ok"), seconds=30)
    events = [
        (one["REMO_EVENT"], one.get("REMO_REASON"))
        for one in machine.journal(f"_PID={operator.main_pid()}")
        if one.get("REMO_EVENT", "").startswith("audit.") and one["REMO_EVENT"] != "audit.probe"
    ]
    assert events == [("audit.degraded", "not_stored"), ("audit.recovered", "not_stored")]


def test_without_its_helper_the_journal_counts_as_healthy(machine: Machine, operator: Operator) -> None:
    operator.configure('audit_failure = "deny"\n')
    machine.systemctl("mask", "--runtime", "remo-broker-read-back.socket")
    try:
        operator.register("kept", ["TOKEN"])
        operator.push({"TOKEN": "value"})
        poll("a secret", lambda: operator.get("kept", "TOKEN").get("ok"))
        said = machine.run(["journalctl", "-b", f"_PID={operator.main_pid()}", "-o", "cat", "--no-pager"]).stdout
        assert "Cannot check whether audit records are stored" in said
    finally:
        machine.systemctl("unmask", "--runtime", "remo-broker-read-back.socket")


def test_the_helper_finds_no_record_that_another_process_of_the_broker_s_user_wrote(
    machine: Machine, operator: Operator
) -> None:
    """Any user can see what the helper looks for in its command line."""
    operator.do("status")
    start = "f" * 32
    forged = f"MESSAGE=forged\nREMO_EVENT=audit.probe\nREMO_START_ID={start}\nREMO_SERIAL=7\nPRIORITY=0\n"
    machine.run(["logger", "--journald"], stdin=forged, user="remo-broker")
    poll("the forged entry", lambda: machine.journal(f"REMO_START_ID={start}"))
    with machine.connect("/run/remo-broker/internal/read-back.sock") as client:
        client.sendall(f"{start} 7 \n".encode())
        assert client.recv(100).strip() == b"absent"


@pytest.mark.parametrize(
    "line", ["x y z; touch /tmp/ran\n", "$(touch /tmp/ran) 1 \n", "a 1 --file=/etc/shadow\n", "\n", "* * *\n"]
)
def test_the_helper_executes_nothing_from_its_input(machine: Machine, operator: Operator, line: str) -> None:
    operator.do("status")
    with machine.connect("/run/remo-broker/internal/read-back.sock") as client:
        client.sendall(line.encode())
        assert client.recv(100).strip() in (b"", b"absent", b"unknown")
    assert not machine.path("/tmp/ran").exists()
