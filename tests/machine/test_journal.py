"""The audit's own journal: no other user can write to it, delay it or displace records, and all
tools read it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine.faults import journald
from tests.support.machine import poll
from tests.support.operator import SERVICE, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

NAMESPACE = "remo-broker"
# Of the entry in which journald says how much space it may use.
USAGE = "ec387f577b844b8fa948f33cad9a75e6"
# For three seconds, connects to each of the journal's sockets again and again, and prints those that it got
# into.
_CONNECT_FOREVER = """
import os, socket, time
directory, end, got = '/run/systemd/journal.remo-broker', time.monotonic() + 3, set()
while time.monotonic() < end:
    for name in os.listdir(directory):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                with socket.socket(socket.AF_UNIX, kind) as client:
                    client.connect(f'{directory}/{name}')
                got.add(name)
            except OSError:
                pass
print(*sorted(got))
"""
# Prints what each of the journal's sockets says to somebody who connects.
_CONNECT_TO_ALL = """
import os, socket
for name in sorted(os.listdir('/run/systemd/journal.remo-broker')):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(f'/run/systemd/journal.remo-broker/{name}')
        except OSError as error:
            print(name, type(error).__name__)
        else:
            print(name, 'open')
"""


def reviewed(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    machine.run(["journalctl", f"--namespace={NAMESPACE}", "--sync"], check=False)
    return Operator(machine).review(*arguments)


@pytest.fixture
def open_control(machine: Machine) -> Iterator[None]:
    """Newer versions of systemd let any user connect to the socket that controls a journald."""
    path = "/etc/systemd/system/systemd-journald-varlink@.socket.d/10-newer.conf"
    machine.write(path, "[Socket]\nSocketMode=0666\n")
    yield
    machine.path(path).unlink()


@pytest.fixture
def own_journal(machine: Machine) -> Iterator[None]:
    machine.run(["remo-brokerctl", "setup-journal", "--now"])
    yield
    machine.systemctl("stop", SERVICE)
    machine.run(["remo-brokerctl", "setup-journal", "--remove"])
    assert machine.show(SERVICE, "LogNamespace") == {"LogNamespace": ""}


def test_the_review_reads_both_journals_completely(machine: Machine, operator: Operator) -> None:
    operator.register("twojournals", ["TOKEN"])
    operator.get("twojournals", "BEFORE")
    machine.run(["remo-brokerctl", "setup-journal", "--now"])
    try:
        operator.get("twojournals", "AFTER")
        found = reviewed(machine, "--project=twojournals")
        assert [one["secret"] for one in found] == ["BEFORE", "AFTER"]
        assert [one["secret"] for one in reviewed(machine, "--project=twojournals", "-n1")] == ["AFTER"]
        assert [one["secret"] for one in reviewed(machine, "--project=twojournals", f"--namespace={NAMESPACE}")] == [
            "AFTER"
        ]
        plain = machine.run(["journalctl", "REMO_PROJECT=twojournals", "-o", "cat", "--no-pager"]).stdout
        assert ("BEFORE" in plain, "AFTER" in plain) == (True, False)
        own = machine.run(
            ["journalctl", f"--namespace={NAMESPACE}", "REMO_PROJECT=twojournals", "-x", "--no-pager"]
        ).stdout
        assert "AFTER" in own
        assert "░░" in own  # the catalog applies there too
    finally:
        machine.systemctl("stop", SERVICE)
        machine.run(["remo-brokerctl", "setup-journal", "--remove"])


# Keeps as many connections to the bus open, without a word, as it lets in at a time.
_BLOCK_BUS = """
import os, socket, time
for _ in range(3):
    os.fork()
held, end = [], time.monotonic() + 60
print('up', flush=True)
while time.monotonic() < end and os.getppid() != 1:
    try:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(1)
        one.connect('/run/dbus/system_bus_socket')
        held = [*held[-99:], one]
    except OSError:
        time.sleep(0.01)
"""


def test_nobody_hides_the_namespace_from_the_review(machine: Machine, operator: Operator, own_journal: None) -> None:
    """Who is not root asks systemd over the bus, which any user can block."""
    machine.run(["useradd", "--no-create-home", "logreader"], check=False)
    machine.run(["usermod", "--groups", "systemd-journal", "logreader"])
    operator.register("hidden", ["TOKEN"])
    operator.get("hidden", "TOKEN")
    assert [one["secret"] for one in reviewed(machine, "--project=hidden")] == ["TOKEN"]
    blocking = machine.popen(["/usr/bin/python3", "-c", _BLOCK_BUS], user="nobody")
    try:
        assert blocking.stdout is not None
        assert blocking.stdout.readline() == "up\n"
        for _ in range(5):
            assert "TOKEN" in machine.run(["remo-brokerctl", "audit", "-j"], user="logreader").stdout
    finally:
        machine.run(["pkill", "-KILL", "-u", "nobody", "python3"], check=False)
        blocking.communicate()


def test_first_fetches_in_the_namespace_are_noted(machine: Machine, operator: Operator, own_journal: None) -> None:
    operator.register("noted", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    assert operator.get("noted", "TOKEN", user=operator.member())["ok"]
    assert [one["secret"] for one in reviewed(machine, "--project=noted")] == ["TOKEN"]
    machine.systemctl("start", "remo-broker-first-seen.service")
    [entry] = machine.journal("REMO_EVENT=fetch.first_seen", "REMO_PROJECT=noted")
    assert entry["_SYSTEMD_UNIT"] == "remo-broker-first-seen.service"


def test_status_names_the_namespace(machine: Machine, operator: Operator, own_journal: None) -> None:
    operator.register("named", ["TOKEN"])
    assert operator.do("status")["audit"]["namespace"] == NAMESPACE
    assert f"namespace {NAMESPACE}" in machine.run(["remo-brokerctl", "status"], check=False).stdout


@pytest.mark.parametrize("user", ["nobody", "remo-broker", "logreader"])
def test_no_other_process_can_connect_to_it(
    machine: Machine, operator: Operator, open_control: None, own_journal: None, user: str
) -> None:
    machine.run(["useradd", "--no-create-home", "logreader"], check=False)
    machine.run(["usermod", "--groups", "systemd-journal", "logreader"])  # who may read all journals
    operator.register("closed", ["TOKEN"])
    operator.get("closed", "TOKEN")
    for _ in range(2):
        said = machine.run(["/usr/bin/python3", "-c", _CONNECT_TO_ALL], user=user).stdout.splitlines()
        assert {"socket PermissionError", "stdout PermissionError"} <= set(said)
        assert {one.partition(" ")[2] for one in said} == {"PermissionError"}
        machine.systemctl("restart", f"systemd-journald@{NAMESPACE}.service")
    if user != "logreader":
        return
    # Not for a moment while it starts, either: who has connected then could write from then on.
    client = machine.popen(["/usr/bin/python3", "-c", _CONNECT_FOREVER], user=user)
    while client.poll() is None:
        machine.systemctl("restart", f"systemd-journald@{NAMESPACE}.service")
        machine.systemctl("reset-failed", f"systemd-journald@{NAMESPACE}.service")  # the limit of starts
    got, problem = client.communicate()
    assert (got.strip(), problem) == ("", "")
    assert operator.get("closed", "TOKEN")["code"] == "not_found"


def test_a_stalled_default_journald_delays_no_client(machine: Machine, operator: Operator, own_journal: None) -> None:
    operator.configure('audit_failure = "deny"\n')
    operator.register("stalled", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    poll("records to be known to be stored", lambda: operator.get("stalled", "TOKEN")["ok"])
    with journald.stopped(machine):
        for _ in range(50):
            assert operator.get("stalled", "TOKEN")["ok"]
    found = reviewed(machine, "--project=stalled")
    assert [one["outcome"] for one in found][-51:] == ["ok"] * 51


def test_a_flood_in_the_default_journal_displaces_nothing(
    machine: Machine, operator: Operator, own_journal: None
) -> None:
    operator.register("kept", ["TOKEN"])
    for number in range(20):
        operator.get("kept", f"N{number}")
    machine.write(
        "/etc/systemd/journald.conf.d/tiny.conf",
        "[Journal]\nSystemMaxUse=8M\nSystemMaxFileSize=1M\nRateLimitBurst=0\n",
    )
    machine.systemctl("restart", "systemd-journald")
    try:
        machine.run(["sh", "-c", "seq 100000 | logger"], user="nobody")
        found = reviewed(machine, "--project=kept")
    finally:
        machine.path("/etc/systemd/journald.conf.d/tiny.conf").unlink()
        machine.systemctl("restart", "systemd-journald")
    assert len(found) == 20
    assert machine.run(["remo-brokerctl", "audit", "--verify", f"--namespace={NAMESPACE}"], check=False).returncode == 0


def test_other_files_on_its_disk_displace_no_record(machine: Machine, operator: Operator, own_journal: None) -> None:
    """Its journald deletes none to keep space free for others, who take it."""
    operator.do("status")

    def usage() -> list[str]:
        argv = ["journalctl", f"--namespace={NAMESPACE}", "-o", "json", "--no-pager", f"MESSAGE_ID={USAGE}"]
        return machine.run(argv, check=False).stdout.splitlines()

    found = json.loads(poll("journald to say what it may use", usage)[-1])
    assert (found["MAX_USE"], found["DISK_KEEP_FREE"]) == (str(1 << 30), "0")
    assert int(found["LIMIT"]) == min(1 << 30, int(found["CURRENT_USE"]) + int(found["DISK_AVAILABLE"]))


def test_in_the_default_journal_displaced_records_are_detected(machine: Machine, operator: Operator) -> None:
    operator.register("gone", ["TOKEN"])
    since = f"--since=@{time.time():.6f}"
    for number in range(20):
        operator.get("gone", f"N{number}")
    machine.run(["journalctl", "--sync"])
    assert json.loads(machine.run(["remo-brokerctl", "audit", "--verify", "-j", since]).stdout)["missing"] == 0
    # All entries, as a flood of small entries eventually does.
    machine.run(["sh", "-c", "journalctl --rotate && journalctl --vacuum-size=1 && rm -f /var/log/journal/*/system@*"])
    operator.get("gone", "LAST")
    done = machine.run(["remo-brokerctl", "audit", "--verify", "-j"], check=False)
    assert done.returncode == 1
    [start] = [one for one in json.loads(done.stdout)["starts"] if one["running"]]
    assert start["gaps"][0]["first"] == 1
    assert start["gaps"][0]["last"] >= 20
    # Of a broker that has ended, not one record has to be left.
    machine.systemctl("stop", SERVICE)
    machine.run(["sh", "-c", "journalctl --rotate && journalctl --vacuum-size=1 && rm -f /var/log/journal/*/system@*"])
    for _ in range(2):
        done = machine.run(["remo-brokerctl", "audit", "--verify", "-j"], check=False)
        assert done.returncode == 1
        assert [one["start_id"] for one in json.loads(done.stdout)["missing_starts"]] == [start["start_id"]]
        operator.do("status")


def test_records_that_waited_when_the_broker_was_killed_are_detected(machine: Machine, operator: Operator) -> None:
    """Any local user can stall the default journald, and another process of the broker's user can
    kill the broker: then nothing is left of what it served meanwhile."""
    operator.register("waited", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    start = operator.do("status")["audit"]["start_id"]
    served = 0
    with journald.stopped(machine):
        while operator.do("status")["audit"]["queued"] < 2:
            assert operator.get("waited", "TOKEN")["ok"]
            served += 1
        machine.run(["kill", "-KILL", str(operator.main_pid())], user="remo-broker")
    poll("another broker", lambda: operator.do("status")["audit"]["start_id"] != start)
    assert len(operator.review("--project=waited")) < served
    done = machine.run(["remo-brokerctl", "audit", "--verify", "-j"], check=False)
    assert done.returncode == 1
    [ended] = [one for one in json.loads(done.stdout)["starts"] if one["start_id"] == start]
    assert ended["gaps"][-1]["or_more"]
    assert ended["gaps"][-1]["first"] == ended["records"] + 1
    # It does not depend on the next start's record of it while the broker does not run.
    machine.systemctl("stop", SERVICE)
    assert machine.run(["remo-brokerctl", "audit", "--verify", "-j"], check=False).returncode == 1


def test_a_hang_of_its_own_journald_is_detected(machine: Machine, operator: Operator, own_journal: None) -> None:
    operator.configure('audit_failure = "deny"\n')
    operator.register("hanging", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    poll("records to be known to be stored", lambda: operator.get("hanging", "TOKEN")["ok"])
    pid = int(machine.show(f"systemd-journald@{NAMESPACE}.service", "MainPID")["MainPID"])
    machine.run(["kill", "-STOP", str(pid)])
    try:
        assert operator.get("hanging", "TOKEN")["reason"] == "audit_unavailable"
    finally:
        machine.run(["kill", "-CONT", str(pid)])
    poll("secrets again", lambda: operator.get("hanging", "TOKEN")["ok"])
