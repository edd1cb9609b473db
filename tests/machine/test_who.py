"""Identifying requesters by the review alone: containers, units and programs, and those that
imitate others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.support.engines import WITH_TOOLS, Nspawn, mounts, run_in_scope
from tests.support.operator import Operator

if TYPE_CHECKING:
    from tests.support.machine import Machine

CONTAINER, OTHER = "0123456789ab" + "c" * 52, "ba9876543210" + "d" * 52
# A package's script: it sets its name, tries secret names, and reads the replies.
_SCAN = """
import socket, sys
open("/proc/self/comm", "w").write("postinstall")
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
answers = client.makefile("rb")
for name in [*(f"T{number}" for number in range(int(sys.argv[2]))), "TOKEN"]:
    client.sendall(b'{"op":"get","name":"%s"}\\n' % name.encode())
    answers.readline()
"""
# Moves itself into a control group below its own, named like another's container.
_PRETEND = """
import os, sys
own = next(line.split(":", 2)[2].strip() for line in open("/proc/self/cgroup") if line.startswith(("0::", "1:name=systemd:")))
for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"):
    group = f"{root}{own}/docker-{sys.argv[3]}.scope"
    try:
        os.mkdir(group)
        open(f"{group}/cgroup.procs", "w").write("0")
    except OSError:
        pass
"""


def reviewed(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    return Operator(machine).review("--project=watched", *arguments)


def test_the_review_shows_a_scan_by_a_script_in_a_container(machine: Machine, watched: str) -> None:
    # Docker makes such a scope for each container.
    run_in_scope(machine, f"docker-{CONTAINER}.scope", "/usr/bin/python3", "-ISc", _SCAN, watched, "40")
    found = reviewed(machine, f"--who=*{CONTAINER[:12]}*")
    assert [one["secret"] for one in found][-41:] == [*(f"T{number}" for number in range(40)), "TOKEN"]
    assert {(one["peer_container"], one["peer_comm"]) for one in found} == {(CONTAINER, "postinstall")}
    rows = machine.run(
        ["remo-brokerctl", "audit", "--project=watched", f"--who=*{CONTAINER[:12]}*"]
    ).stdout.splitlines()
    [scan] = [row for row in rows if " x T0" in row]
    assert "40 x T0 ... T39" in scan
    assert re.search(r"not_in_manifest|not_in_m\.+est", scan)  # the column is narrowed for the others
    assert f"postinstall in {CONTAINER[:12]}" in scan
    assert any("TOKEN" in row and "ok" in row for row in rows)
    assert max(map(len, rows)) <= 100


def test_a_group_named_like_a_container_is_not_taken_for_one(machine: Machine, watched: str) -> None:
    run = ["systemd-run", "--wait", "-q", "--unit=pretender", "-pDelegate=yes"]
    machine.run([*run, "/usr/bin/python3", "-ISc", _PRETEND + _SCAN, watched, "0", OTHER])
    [found] = reviewed(machine, "--who=*pretender*")
    assert found["peer_unit"] == "pretender.service"
    shown = machine.run(["remo-brokerctl", "audit", "--project=watched", "--who=*pretender*", "--full"]).stdout
    assert "pretender" in shown
    assert f"in container {OTHER[:12]}\n" not in shown


def test_groups_below_a_container_are_ignored(machine: Machine, watched: str) -> None:
    run_in_scope(
        machine, f"docker-{OTHER}.scope", "/usr/bin/python3", "-ISc", _PRETEND + _SCAN, watched, "0", CONTAINER
    )
    found = [one for one in reviewed(machine) if one.get("peer_unit") == f"docker-{OTHER}.scope"]
    assert [one["peer_container"] for one in found] == [OTHER]


def test_a_service_of_another_user_is_named(machine: Machine, watched: str) -> None:
    run = ["systemd-run", "--wait", "-q", "--unit=job", "--uid=games", "-pGroup=remo-broker"]
    machine.run([*run, "/usr/bin/python3", "-ISc", _SCAN.replace("postinstall", "worker"), watched, "1"])
    found = reviewed(machine, "--who=job*")
    assert {(one["peer_unit"], one["peer_comm"], one["peer_user"]) for one in found} == {
        ("job.service", "worker", "games")
    }


def test_a_container_of_nspawn_is_named(machine: Machine, watched: str) -> None:
    engine = Nspawn(machine)
    nspawn = engine.argv(WITH_TOOLS, mounts("watched"), "remo-secret", "get", "TOKEN")
    nspawn = nspawn[nspawn.index("systemd-nspawn") :]
    # The name that machined gives to a container's scope.
    assert run_in_scope(machine, "machine-web.scope", "--slice=machine.slice", *nspawn) == "value"
    found = reviewed(machine)[-1]
    assert (found["peer_container"], found["peer_unit"]) == ("web", "machine-web.scope")


def test_the_broker_sees_only_public_files_of_other_processes(
    machine: Machine, operator: Operator, watched: str
) -> None:
    """Its unit shows it other processes, for their control groups; their private files stay
    closed."""
    pid = operator.main_pid()
    inside = ["nsenter", "-t", str(pid), "-m", "--setuid", str(machine.ids("remo-broker")[0]), "--", "sh", "-c"]
    for file in ("environ", "maps", "mem", "fd/0", "root/etc"):
        assert machine.run([*inside, f"cat /proc/1/{file}"], check=False).returncode != 0
    assert machine.run([*inside, "cat /proc/1/cgroup"]).stdout


def test_first_fetches_are_noted_once_at_notice_priority(machine: Machine, operator: Operator, watched: str) -> None:
    run = ["systemd-run", "--wait", "-q", "--unit=newcomer"]
    machine.run([*run, "/usr/bin/python3", "-ISc", _SCAN.replace("postinstall", "newcomer"), watched, "3"])
    machine.run(["journalctl", "--sync"])

    def noted() -> list[dict[str, Any]]:
        machine.systemctl("start", "remo-broker-first-seen.service")
        entries = machine.journal("REMO_EVENT=fetch.first_seen", "REMO_PEER_COMM=newcomer")
        return [one for one in entries if one["_SYSTEMD_UNIT"] == "remo-broker-first-seen.service"]

    [entry] = noted()
    assert (entry["REMO_PROJECT"], entry["REMO_SECRET"], entry["PRIORITY"]) == ("watched", "TOKEN", "5")
    assert entry["REMO_PEER_UNIT"] == "newcomer.service"
    machine.run([*run, "/usr/bin/python3", "-ISc", _SCAN.replace("postinstall", "newcomer"), watched, "0"])
    machine.run(["journalctl", "--sync"])
    assert len(noted()) == 1
    assert machine.systemctl("is-active", "remo-broker-first-seen.timer") == "active"
