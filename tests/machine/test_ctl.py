"""The two commands on a real host: units, the state of the broker, and the review of the audit."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.machine import poll
from tests.support.operator import ADMIN, SERVICE, Operator

if TYPE_CHECKING:
    import subprocess

    from tests.support.machine import Machine

# Sends journald a record with arbitrary fields, as any user may.
FORGE = """
import socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("/run/systemd/journal/socket")
sender.send(sys.stdin.buffer.read())
"""

# The command in its interpreter; prints on standard error how many functions it called.
PYTHON = "/usr/lib/remo-broker/bin/python3"
COUNTED = """
import sys
from remo_broker.ctl.main import main
calls = 0
def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")
sys.setprofile(count)
status = main(sys.argv[1:])
sys.setprofile(None)
print(calls, file=sys.stderr)
sys.exit(status)
"""
FLOOD = 100_000


def brokerctl(
    machine: Machine, *arguments: str, user: str | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return Operator(machine).command(*arguments, user=user, stdin=stdin, check=False)


def says(machine: Machine, *arguments: str, status: int = 0, stdin: str = "") -> str:
    done = brokerctl(machine, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (status, ""), done
    return done.stdout


def audit(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    return Operator(machine).review(*arguments)


# --- status


def test_status_does_not_start_the_broker(machine: Machine) -> None:
    assert says(machine, "status", status=3).splitlines() == [
        "○ remo-broker",
        " State: idle; it holds no secrets, and the next connection starts it",
        f"Socket: {ADMIN}",
    ]
    assert json.loads(says(machine, "status", "-j", status=3)) == {"state": "idle", "socket_path": ADMIN}
    assert machine.systemctl("is-active", SERVICE, check=False) == "inactive"
    machine.systemctl("start", SERVICE)
    assert " State: running since" in says(machine, "status")
    machine.systemctl("stop", SERVICE, "remo-broker-admin.socket", "remo-broker-status.socket")
    assert "systemctl enable --now remo-broker-admin.socket" in says(machine, "status", status=3)


def test_status_of_a_broker_that_cannot_start(machine: Machine, operator: Operator) -> None:
    machine.write("/etc/remo-broker/config.toml", "nonsense = 1\n")
    machine.systemctl("start", SERVICE, check=False)

    def state() -> tuple[int, str]:
        done = brokerctl(machine, "status", "-j")
        # During another attempt its state is unknown.
        return done.returncode, json.loads(done.stdout)["state"] if done.stdout else done.stderr

    poll("the start to have failed", lambda: state() == (1, "failed"))
    machine.systemctl("stop", SERVICE)
    operator.override(SERVICE, "[Service]\nExecStartPre=/bin/sleep 3\nRestartSec=1h\n")
    machine.systemctl("start", "--no-block", SERVICE)
    with machine.popen(["remo-brokerctl", "status"]) as asking:
        text, _ = asking.communicate()
    assert "nonsense" in text
    assert asking.returncode == 1


def test_a_broker_that_cannot_start_is_reported_at_once(machine: Machine) -> None:
    """systemd accepts the connection nevertheless, so the request would wait for its timeout of 30
    seconds."""
    machine.write("/etc/remo-broker/config.toml", "nonsense = 1\n")
    for command, stdin in ((["list"], ""), (["push"], "A=x\n")):
        done = machine.run(["timeout", "25", "remo-brokerctl", *command], check=False, stdin=stdin)
        assert done.returncode == 1, "not timeout's 124"
        assert "cannot start" in done.stderr
        assert "nonsense" in done.stderr


def test_commands_without_permission(machine: Machine) -> None:
    machine.systemctl("start", SERVICE)
    for command, status in (("status", 4), ("list", 1)):
        done = brokerctl(machine, command, user="nobody")
        assert done.returncode == status
        assert done.stderr == (
            f"remo-brokerctl: {ADMIN}: permission denied (mode 0660, root:remo-broker-admin; you are nobody)\n"
            "Hint: use sudo, or join the group remo-broker-admin\n"
        )
    assert brokerctl(machine, "audit", user="nobody").stderr == (
        "remo-brokerctl: cannot read the journal: permission denied\n"
        "Hint: use sudo, or join the group systemd-journal\n"
    )


# --- audit


@pytest.fixture
def reviewed(machine: Machine, operator: Operator) -> str:
    """A time after which one project had gets of all outcomes, and another was refused."""
    begin = f"@{time.time():.6f}"
    operator.register("tools-c", ["TOKEN", "MISSING"])
    machine.run(["usermod", "--append", "--groups", "remo-broker", "games"])
    operator.register("tools-d", ["TOKEN"], allowed_uids=[machine.ids("games")[0]])
    operator.push({"TOKEN": "zqMarkerzq"})
    for name in ("TOKEN", "MISSING", "OTHER", "no\x1b[31mname"):
        operator.get("tools-c", name)
    machine.run(["remo-secret", "--socket=/run/remo-broker/tools-d.sock", "get", "TOKEN"], user="games")
    machine.run(["remo-secret", "--socket=/run/remo-broker/tools-d.sock", "list"], check=False)
    return begin


def test_review(machine: Machine, reviewed: str) -> None:
    since = f"--since={reviewed}"
    found = audit(machine, since, "--project=tools-c")
    assert [(one["secret"], one["decision"], one["outcome"], one["reason"]) for one in found] == [
        ("TOKEN", "allow", "ok", "in_manifest"),
        ("MISSING", "allow", "not_found", "not_in_snapshot"),
        ("OTHER", "deny", "denied", "not_in_manifest"),
        (r"no\x1b[31mname", "deny", "denied", "invalid_name"),
    ]
    assert found[0]["backend"] == "store"
    assert sum("first_seen" in one for one in audit(machine, "--project=tools-c", "--secret=TOKEN")) <= 1
    assert (found[0]["peer_uid"], found[0]["peer_user"]) == (0, "root")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found[0]["time"])
    assert [one["secret"] for one in audit(machine, since, "--secret=TOKEN", "--project", "tools-c")] == ["TOKEN"]
    denied = audit(machine, since, "--denied")
    assert [one.get("secret") for one in denied if one["project"] == "tools-c"] == ["OTHER", r"no\x1b[31mname"]
    assert [one["event"] for one in denied if one["project"] == "tools-d"] == ["peer.refused"]
    [fetch, refusal] = audit(machine, since, "--project=tools-d")
    assert (fetch["peer_uid"], refusal["peer_uid"]) == (machine.ids("games")[0], 0)
    assert [one.get("secret") for one in audit(machine, since, "-n2", "--project=tools-c")] == [
        "OTHER",
        r"no\x1b[31mname",
    ]
    assert audit(machine, since, "-n", "0") == []
    assert len(audit(machine, since, "--lines=100", "--project=tools-c")) == 4
    assert audit(machine, "--until", reviewed, "--project=tools-c") == []
    events = [one["event"] for one in audit(machine, since, "--all")]
    events = [event for event in events if event != "audit.probe"]  # whenever it is time for one
    assert events[:4] == ["broker.started", "project.registered", "project.registered", "secrets.pushed"]


def test_review_for_people(machine: Machine, reviewed: str) -> None:
    machine.run(["journalctl", "--sync"])
    header, *rows = says(machine, "audit", "--since", reviewed, "--project=tools-c").splitlines()
    assert header.split() == ["TIME", "PROJECT", "SECRET", "OUTCOME", "REASON", "WHO"]
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{when} +tools-c +TOKEN +ok(, new)? +in_manifest +\S.*", rows[0])
    assert re.fullmatch(rf"{when} +tools-c +MISSING +not_found +not_in_snapshot +\S.*", rows[1])
    assert re.fullmatch(rf"{when} +tools-c +no\\x1b\[31mname +denied +invalid_name +\S.*", rows[3])
    refusals = says(machine, "audit", "--since", reviewed, "--project=tools-d", "--no-legend").splitlines()
    assert re.search(r"tools-d +- +peer\.refused", refusals[-1])
    assert "zqMarkerzq" not in says(machine, "audit", "--since", reviewed, "--all", "--json=pretty")


def test_an_unknown_project_is_an_error(machine: Machine, reviewed: str) -> None:
    done = brokerctl(machine, "audit", "--project=tools-typo")
    assert done.returncode == 1
    assert "no project tools-typo" in done.stderr
    # A former or current project may have no records in the span.
    assert brokerctl(machine, "audit", "--project=tools-c", "--until=2020-01-01").returncode == 0
    machine.run(["remo-brokerctl", "unregister", "--no-enable", "tools-d"])
    assert brokerctl(machine, "audit", "--project=tools-d", "--until=2020-01-01").returncode == 0


def test_the_unit_and_the_program_are_named(machine: Machine, operator: Operator, reviewed: str) -> None:
    asked = ["remo-secret", "--socket=/run/remo-broker/tools-c.sock", "get", "TOKEN"]
    machine.run(["systemd-run", "--wait", "-q", "--unit=asker", "--uid=games", "-pGroup=remo-broker", *asked])
    since = f"--since={reviewed}"
    machine.run(["journalctl", "--sync"])
    [found] = audit(machine, since, "--who=asker*")
    assert (found["peer_unit"], found["peer_comm"], found["peer_user"]) == ("asker.service", "remo-secret", "games")
    assert found["first_seen"] is True
    machine.run(["systemd-run", "--wait", "-q", "--unit=asker", "--uid=games", "-pGroup=remo-broker", *asked])
    machine.run(["journalctl", "--sync"])
    assert ["first_seen" in one for one in audit(machine, since, "--who=asker*")] == [True, False]
    assert "remo-secret in asker" in says(machine, "audit", since)


def test_summary(machine: Machine, operator: Operator, reviewed: str) -> None:
    for _ in range(3):
        operator.get("tools-c", "TOKEN")
    operator.get("tools-c", "OTHER")
    machine.run(["journalctl", "--sync"])
    found = json.loads(says(machine, "audit", "--summary", "-j", "--since", reviewed, "--project=tools-c"))
    counts = [(one["secret"], one["denied"], one["allowed"], one["not_found"]) for one in found]
    assert counts == [
        ("OTHER", 2, 0, 0),
        (r"no\x1b[31mname", 1, 0, 0),
        ("MISSING", 0, 0, 1),
        ("TOKEN", 0, 4, 0),
    ]
    assert all(one["first"] <= one["last"] for one in found)
    assert found[3]["first"] < found[3]["last"]
    header, first, *_ = says(machine, "audit", "--summary", "--since", reviewed, "--project=tools-c").splitlines()
    assert header.split() == ["PROJECT", "SECRET", "DENIED", "ALLOWED", "NOT", "FOUND", "FIRST", "LAST", "WHO"]
    assert first.split()[:5] == ["tools-c", "OTHER", "2", "0", "0"]


@pytest.mark.parametrize("user", ["nobody", "root", "remo-broker", "remo-broker-manifest"])
def test_forged_records_are_not_shown(machine: Machine, reviewed: str, user: str) -> None:
    """Another process sends our fields and the unit's name to journald; the trusted fields reveal
    it."""
    record = (
        "MESSAGE=Project tools-c fetched FORGED.\nSYSLOG_IDENTIFIER=remo-broker\nPRIORITY=6\n"
        "MESSAGE_ID=646507820fc6454c85c2413b72918c0a\nREMO_EVENT=fetch\nREMO_PROJECT=tools-c\nREMO_SECRET=FORGED\n"
        "REMO_DECISION=deny\nREMO_OUTCOME=ok\n_SYSTEMD_UNIT=remo-broker.service\n_UID=1\nUNIT=remo-broker.service\n"
    )
    machine.run(["/usr/bin/python3", "-c", FORGE], stdin=record, user=user)
    assert machine.journal("REMO_SECRET=FORGED"), "it is in the journal"
    for arguments in ((), ("--denied",), ("--secret=FORGED",), ("--all",)):
        assert not [one for one in audit(machine, "--since", reviewed, *arguments) if one.get("secret") == "FORGED"]
    assert "FORGED" not in says(machine, "audit", "--summary", "--since", reviewed)


def test_follow(machine: Machine, operator: Operator, reviewed: str) -> None:
    machine.run(["journalctl", "--sync"])
    follower = machine.popen(["remo-brokerctl", "audit", "--follow", "-n1", "--project=tools-c", "-j"])
    assert follower.stdout is not None
    with follower:
        try:
            assert json.loads(follower.stdout.readline())["secret"] == r"no\x1b[31mname", "the last one so far"
            for name in ("MISSING", "TOKEN"):
                operator.get("tools-c", name)
                assert json.loads(follower.stdout.readline())["secret"] == name
        finally:
            # It exits when it writes to its closed output.
            follower.stdout.close()
            operator.get("tools-c", "TOKEN")
    assert follower.returncode == 0


def test_follow_since(machine: Machine, operator: Operator, reviewed: str) -> None:
    """As with journalctl: all since then, not the last ten of them."""
    for number in range(12):
        operator.get("tools-c", f"N{number}")
    machine.run(["journalctl", "--sync"])
    follower = machine.popen(["remo-brokerctl", "audit", "-f", "--since", reviewed, "--project=tools-c", "-j"])
    assert follower.stdout is not None
    with follower:
        try:
            assert json.loads(follower.stdout.readline())["secret"] == "TOKEN", "the first one"
        finally:
            follower.stdout.close()
            operator.get("tools-c", "TOKEN")


def test_many_entries_of_others_cost_nothing(machine: Machine, reviewed: str) -> None:
    """The journal's index skips them, not Python one by one."""
    flood = (
        "import socket\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect('/run/systemd/journal/socket')\n"
        f"for n in range({FLOOD}): s.send(b'MESSAGE=%d\\nREMO_EVENT=fetch\\nREMO_PROJECT=tools-c\\n' % n)\n"
    )
    machine.write("/etc/systemd/journald.conf.d/flood.conf", "[Journal]\nRateLimitBurst=0\n")
    machine.systemctl("restart", "systemd-journald")
    try:
        before = audit(machine, "--since", reviewed)
        machine.run(["/usr/bin/python3", "-c", flood])
        machine.run(["journalctl", "--sync"])
        counted = machine.run([PYTHON, "-Ic", COUNTED, "audit", "-j", "--since", reviewed])
    finally:
        machine.path("/etc/systemd/journald.conf.d/flood.conf").unlink()
        machine.systemctl("restart", "systemd-journald")
    assert [json.loads(line) for line in counted.stdout.splitlines()] == before
    assert int(counted.stderr) < FLOOD, "calls: one for each of them, at least, if they were read"


# --- what is installed beside


def test_completions_and_the_one_file(machine: Machine, operator: Operator) -> None:
    for file in (
        "/usr/share/bash-completion/completions/remo-brokerctl",
        "/usr/share/zsh/vendor-completions/_remo-secret",
        "/usr/share/fish/vendor_completions.d/remo-brokerctl.fish",
    ):
        assert machine.path(file).is_file(), file
    operator.register("tools-e", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    program, where = "/usr/lib/remo-broker/remo-secret.pyz", f"--socket={operator.socket('tools-e')}"
    done = machine.run(["/usr/bin/python3", "-I", "-S", program, where, "get", "TOKEN"])
    assert done.stdout == "value"


def test_wait_bridges_a_restart_of_the_broker(machine: Machine, operator: Operator) -> None:
    """`remo-secret wait` bridges the time without secrets after a restart."""
    operator.register("tools-f", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    machine.systemctl("restart", SERVICE)
    variables = {"REMO_BROKER_SOCKET": operator.socket("tools-f")}
    with machine.popen(["env", *map("=".join, variables.items()), "remo-secret", "wait", "--timeout=60"]) as waiting:
        time.sleep(0.5)
        assert waiting.poll() is None
        says(machine, "push", stdin='{"TOKEN":"again"}')
    assert waiting.returncode == 0
    assert machine.run(["remo-secret", "get", "TOKEN"], env=variables).stdout == "again"
