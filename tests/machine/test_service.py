"""Running: what systemd shows about the broker, and what it survives."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.machine.faults import journald
from tests.support.host_memory import protection
from tests.support.load import ConnectionLoad
from tests.support.machine import poll
from tests.support.operator import ADMIN, SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.machine import Machine
    from tests.support.operator import Operator

# Systemd starts a service five times in ten seconds by default. `./run faults` sends hundreds.
CRASHES = 30
RESTARTS = 10


def test_ready_status_and_watchdog_are_visible(machine: Machine, operator: Operator) -> None:
    operator.register("seen", ["TOKEN"])
    operator.push({"TOKEN": "x"})
    poll("the status line", lambda: "1 secret" in machine.show(SERVICE, "StatusText")["StatusText"])
    shown = machine.show(
        SERVICE, "Type", "SubState", "NotifyAccess", "StatusText", "WatchdogUSec", "NFileDescriptorStore"
    )
    assert shown == {
        "Type": "notify",
        "SubState": "running",
        "NotifyAccess": "main",
        "StatusText": f"Serving 1 project, 1 secret (generation 1), memory {protection()}",
        "WatchdogUSec": "20s",
        "NFileDescriptorStore": "2",
    }
    operator.do("unregister", name="seen")
    poll("the store to forget it", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] == "0")


def test_the_watchdog_is_fed_and_kills_a_hanging_broker(machine: Machine, operator: Operator) -> None:
    operator.override(SERVICE, "[Service]\nWatchdogSec=2s\n")
    operator.do("status")
    pid = operator.main_pid()

    def fed() -> int:
        return int(machine.show(SERVICE, "WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"])

    for _ in range(2):
        before = fed()
        poll("the watchdog to be fed", lambda before=before: fed() > before)  # type: ignore[misc]
    assert operator.main_pid() == pid
    machine.run(["kill", "-STOP", str(pid)])
    poll("another process", lambda: operator.main_pid() not in {0, pid})
    operator.do("status")
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in machine.journal("_PID=1", f"UNIT={SERVICE}"))


def test_sigterm_lets_requests_in_flight_finish(machine: Machine, operator: Operator) -> None:
    path = operator.register("drain", ["BIG"])
    operator.push({"BIG": "b" * 60_000})
    # More replies than the kernel buffers: the broker still has some to send at the stop.
    asked = 40
    with machine.connect(path) as client, client.makefile("rb") as answers:
        client.sendall(b'{"op":"get","name":"BIG"}\n' * asked)
        assert len(json.loads(answers.readline())["value"]) == 60_000
        pid = operator.main_pid()
        machine.systemctl("kill", "--signal=TERM", "--kill-whom=main", SERVICE)
        time.sleep(0.3)
        rest = [json.loads(line) for line in answers]
    # Every reply is complete; those after the signal may be missing, but not truncated.
    assert rest
    assert all(len(answer["value"]) == 60_000 for answer in rest)
    fetched = machine.journal("REMO_EVENT=fetch", "REMO_PROJECT=drain", f"_PID={pid}")
    assert len(fetched) >= 1 + len(rest)
    # The exit was clean, systemd kept the sockets, and a connect starts the next one.
    assert operator.do("status")["secret_count"] == 0
    [ended] = machine.journal("REMO_EVENT=broker.stopped", f"_PID={pid}")
    assert ended["MESSAGE_ID"]
    exits = [entry["MESSAGE"] for entry in machine.journal("_PID=1", f"UNIT={SERVICE}")]
    assert not any("Failed with result" in message for message in exits[-6:]), exits[-6:]


def test_hangup_reloads_all_manifests(machine: Machine, operator: Operator) -> None:
    for project in ("one", "two"):
        operator.register(project, ["OLD", "NEW"])
        operator.manifest(project, ["NEW"])
    pid = operator.main_pid()
    machine.systemctl("reload", SERVICE)

    def allowed(project: str) -> bool:
        return bool(machine.ask(operator.socket(project), {"op": "info"})["allowlist"] == ["NEW"])

    for project in ("one", "two"):
        poll(f"the allowlist of {project}", lambda project=project: allowed(project))  # type: ignore[misc]
    machine.wait_state(SERVICE, "active")
    assert operator.main_pid() == pid


def _survives(machine: Machine, operator: Operator, happen: Callable[[], object]) -> None:
    """Assert that during `happen` no connect is refused, on sockets of units and of the descriptor
    store, and that no socket is recreated."""
    unit = operator.register("unit", ["TOKEN"])
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", "remo-broker-client@unit.socket")
    kept = operator.register("kept", ["TOKEN"])
    inodes = [operator.inode(path) for path in (ADMIN, kept, unit, "/run/remo-broker")]
    with ConnectionLoad(machine, kept) as on_kept, ConnectionLoad(machine, unit) as on_unit:
        happen()
    assert on_kept.refused == on_unit.refused == []
    assert min(on_kept.answers, on_unit.answers) > 0
    assert [operator.inode(path) for path in (ADMIN, kept, unit, "/run/remo-broker")] == inodes
    status = operator.do("status")
    assert [project["name"] for project in status["projects"]] == ["kept", "unit"]
    for path in (kept, unit):
        answer = machine.ask(path, {"op": "get", "name": "TOKEN"})
        assert (answer["code"], answer["reason"]) == ("not_found", "no_snapshot")
    sockets = ("remo-broker-admin.socket", "remo-broker-status.socket", "remo-broker-client@unit.socket")
    assert [machine.systemctl("is-active", socket, check=False) for socket in sockets] == ["active"] * 3


def test_restarts_under_load_refuse_no_client(machine: Machine, operator: Operator) -> None:
    def restart() -> None:
        for _ in range(RESTARTS):
            machine.systemctl("restart", SERVICE)

    _survives(machine, operator, restart)


def test_many_crashes_in_a_row_leave_the_sockets(machine: Machine, operator: Operator) -> None:
    # Sooner than in the unit, so that the test is shorter and strains the limits more.
    operator.override(SERVICE, "[Service]\nRestartSec=20ms\n")

    def crash() -> None:
        crashed = {0}
        for _ in range(CRASHES):
            pid = poll("a process to kill", lambda: {operator.main_pid()} - crashed).pop()
            machine.run(["kill", "-KILL", str(pid)], check=False)
            crashed.add(pid)
        poll("the last start", lambda: operator.main_pid() not in crashed)

    _survives(machine, operator, crash)


def test_a_bind_mounted_socket_outlives_a_restart(machine: Machine, operator: Operator) -> None:
    path = operator.register("mounted", ["TOKEN"])
    machine.run(["sh", "-c", f"touch /run/in-container.sock && mount --bind {path} /run/in-container.sock"])
    try:
        machine.systemctl("restart", SERVICE)
        assert machine.ask("/run/in-container.sock", {"op": "ping"})["project"] == "mounted"
    finally:
        machine.run(["umount", "/run/in-container.sock"])


def test_a_stop_without_journald_exits_with_status_0(machine: Machine, operator: Operator) -> None:
    """Its last records are not accepted, not even on standard error; its exit status is 0
    nevertheless."""
    operator.do("status")
    with journald.gone(machine):
        operator.ask("clear-creds")  # whose record reveals it
        machine.systemctl("stop", SERVICE)
        ended = machine.show(SERVICE, "Result", "ExecMainStatus")
    assert ended == {"Result": "success", "ExecMainStatus": "0"}
