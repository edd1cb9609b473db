"""Activation: what starts the broker, what it adopts, when it exits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.machine import poll
from tests.support.operator import ADMIN, SERVICE, STATUS

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

IDLE = "idle_exit_seconds = 1\n"
# Long enough for a wrong exit to happen.
IDLE_THRICE = 3.0


def test_nothing_runs_before_the_first_connect(machine: Machine, operator: Operator) -> None:
    assert machine.show(SERVICE, "ActiveState", "MainPID") == {"ActiveState": "inactive", "MainPID": "0"}
    assert machine.path(ADMIN).is_socket()
    assert machine.path(STATUS).is_socket()  # started by the one command

    assert operator.do("status")["projects"] == []

    assert machine.systemctl("is-active", SERVICE) == "active"


def test_a_connect_on_the_status_socket_starts_it_too(machine: Machine) -> None:
    assert machine.ask(STATUS, {"op": "status"})["ok"] is True


def test_shell_clients_that_read_once(machine: Machine, operator: Operator) -> None:
    operator.register("shell", ["TOKEN"])
    operator.push({"TOKEN": "x" * 60_000})
    asked = machine.run(["sh", "-c", f'printf \'{{"op":"status"}}\\n\' | socat - UNIX-CONNECT:{ADMIN}'])
    assert '"ok":true' in asked.stdout.replace(" ", "")
    get = '{"op":"get","name":"TOKEN"}'
    asked = machine.run(["sh", "-c", f"printf '{get}' | socat -t5 -b65536 - UNIX-CONNECT:{operator.socket('shell')}"])
    assert '"value"' in asked.stdout
    assert len(asked.stdout) > 60_000


def test_a_client_socket_starts_it_after_a_reboot(machine: Machine, operator: Operator) -> None:
    """Registrations are restored as validated, whatever the manifest on disk says."""
    operator.register("early", ["OLD"])
    operator.register("other", ["OLD"])
    # `remo-brokerctl register` also does this: from the next boot on, systemd opens the socket
    # first.
    machine.systemctl("enable", "remo-broker-client@early.socket")
    operator.manifest("early", ["OLD", "NEW"])

    machine.reboot()

    assert machine.show(SERVICE, "ActiveState")["ActiveState"] == "inactive"
    info = machine.ask(operator.socket("early"), {"op": "info"})
    assert info.items() >= {"ok": True, "project": "early", "schema_version": 1}.items()
    assert info["allowlist"] == ["OLD"]
    assert machine.systemctl("is-active", SERVICE) == "active"
    denied = operator.get("early", "NEW")
    assert (denied["code"], denied["reason"]) == ("denied", "not_in_manifest")
    empty = operator.get("early", "OLD")
    assert (empty["code"], empty["reason"], empty["retry_after_seconds"]) == ("not_found", "no_snapshot", 1)
    # The other one has no unit: the broker opens it at its start, whatever started it.
    assert machine.ask(operator.socket("other"), {"op": "ping"})["project"] == "other"
    assert operator.do("reload", name="early")["allowlist"] == ["OLD", "NEW"]


def test_a_socket_without_a_registration_denies(machine: Machine, operator: Operator) -> None:
    machine.systemctl("start", "remo-broker-client@nobodys.socket")
    with machine.connect(operator.socket("nobodys")) as client, client.makefile("rb") as answers:
        client.sendall(b'{"op":"get","name":"TOKEN"}\n')
        answer = answers.readline()
        assert b'"denied"' in answer
        assert b'"not_registered"' in answer
        assert answers.readline() == b""  # closed
    [entry] = machine.journal("REMO_EVENT=fetch", "REMO_PROJECT=nobodys")
    assert entry["REMO_REASON"] == "not_registered"


def test_a_descriptor_of_another_kind_is_closed_and_logged(machine: Machine, operator: Operator) -> None:
    machine.write(
        "/run/systemd/system/remo-broker-foreign.socket",
        "[Socket]\nListenDatagram=/run/foreign.sock\nFileDescriptorName=client-foreign\nService=remo-broker.service\n",
    )
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "remo-broker-foreign.socket")
    operator.do("status")
    machine.systemctl("stop", "remo-broker-foreign.socket")
    machine.path("/run/systemd/system/remo-broker-foreign.socket").unlink()
    messages = [entry["MESSAGE"] for entry in machine.journal(f"_SYSTEMD_UNIT={SERVICE}", "PRIORITY=4")]
    assert any("client-foreign" in message for message in messages)


def test_an_idle_broker_exits_and_the_next_connect_starts_it(machine: Machine, operator: Operator) -> None:
    operator.configure(IDLE)
    operator.do("status")
    machine.wait_state(SERVICE, "inactive")
    # A separate status, by which the unit distinguishes it from a SIGTERM, after which it starts
    # again.
    assert machine.show(SERVICE, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "75"}
    assert machine.systemctl("is-active", "remo-broker-admin.socket") == "active"
    operator.do("status")


def test_it_stays_while_it_holds_a_secret(machine: Machine, operator: Operator) -> None:
    operator.configure(IDLE)
    operator.push({"TOKEN": "kept"})
    time.sleep(IDLE_THRICE)
    assert operator.do("status")["secret_count"] == 1
    operator.do("clear-creds")
    machine.wait_state(SERVICE, "inactive")


def test_it_stays_while_a_client_is_connected(machine: Machine, operator: Operator) -> None:
    operator.configure(IDLE)
    operator.do("status")
    with machine.connect(ADMIN) as client, client.makefile("rb") as answers:
        client.sendall(b'{"op":"status"}\n')
        answers.readline()
        pid = operator.main_pid()
        time.sleep(IDLE_THRICE)
        assert operator.main_pid() == pid
    machine.wait_state(SERVICE, "inactive")


def test_it_stays_while_no_other_process_holds_its_listener(machine: Machine, operator: Operator) -> None:
    operator.configure(IDLE)
    operator.register("only", ["TOKEN"])
    pid = operator.main_pid()
    time.sleep(IDLE_THRICE)
    assert operator.main_pid() == pid
    # Opened by systemd after a boot, the same listener does not keep it running.
    machine.systemctl("enable", "remo-broker-client@only.socket")
    machine.reboot()
    assert machine.ask(operator.socket("only"), {"op": "ping"})["ok"] is True
    machine.wait_state(SERVICE, "inactive")
    assert machine.ask(operator.socket("only"), {"op": "ping"})["ok"] is True


def test_a_wrong_configuration_stops_the_start_with_one_line(machine: Machine, operator: Operator) -> None:
    operator.configure("idle_exit_secnds = 1\n")
    machine.systemctl("start", SERVICE, check=False)

    def said() -> list[str]:
        entries = machine.journal(f"_SYSTEMD_UNIT={SERVICE}", "_TRANSPORT=stdout")
        return [entry["MESSAGE"] for entry in entries if "idle_exit_secnds" in entry["MESSAGE"]]

    [first, *_] = poll("the line that names the key", said)
    assert first.startswith("remo-broker: ")
    assert not [entry for entry in machine.journal(f"_SYSTEMD_UNIT={SERVICE}") if "Traceback" in str(entry["MESSAGE"])]
    # Once fixed, it starts by itself, and the sockets still exist.
    operator.configure(IDLE)
    assert operator.do("status")["ok"] is True
