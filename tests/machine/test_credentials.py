"""`LoadCredential=` from the broker: the right bytes, or no start and a reason.

Each unit is real, and so is systemd's handling of the answer.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import TYPE_CHECKING

from tests.support.loading import EXIT_CREDENTIALS, RULES, fails, loaded, refusals, unit
from tests.support.machine import REPOSITORY, poll
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

BINARY = bytes(range(256))


def test_a_unit_loads_the_bytes_of_its_secrets(machine: Machine, host: Operator) -> None:
    odd = 'päss"\\\n/\u2028😀'
    host.do(
        "push-creds",
        secrets={"PASSWORD": odd, "aws": {"user": "me\n", "key": "zq"}},
        secrets_b64={"KEYSTORE": base64.b64encode(BINARY).decode()},
    )
    unit(machine, "load@one.service", "password", "key", "user")
    machine.systemctl("start", "load@one.service")
    assert loaded(machine, "load@one.service", "password") == odd.encode()
    assert loaded(machine, "load@one.service", "key") == BINARY
    assert loaded(machine, "load@one.service", "user") == b"me\n"
    [record] = machine.journal("REMO_UNIT=load@one.service", "REMO_CREDENTIAL=password")
    assert (record["REMO_UNIT"], record["REMO_SECRET"], record["REMO_OUTCOME"], record["REMO_PEER_UID"]) == (
        *("load@one.service", "PASSWORD"),
        *("ok", "0"),
    )
    assert "REMO_PROJECT" not in record
    review = ["remo-brokerctl", "audit", "--unit=load@one.service", "--json=short"]
    shown = [json.loads(line) for line in machine.run(review).stdout.splitlines()]
    assert {one["credential"] for one in shown} == {"password", "key", "user"}
    assert machine.run(["remo-brokerctl", "audit", "--unit=other.service", "--json=short"]).stdout == ""
    unit(machine, "load@two.service", "other")
    fails(machine, "load@two.service", "not_in_configuration", "other")
    assert (host.do("status")["credentials_served"], host.do("status")["credentials_refused"]) == (3, 1)
    where = ("io.get2know.RemoBroker1", "/io/get2know/RemoBroker1", "io.get2know.RemoBroker1.Manager")
    asked = ["busctl", "get-property", *where, "CredentialsServed", "CredentialsRefused"]
    poll("the counters on the bus", lambda: machine.run(asked).stdout.split() == ["t", "3", "t", "1"])


def test_the_manuals_example_is_a_backup_that_gets_its_password(machine: Machine, host: Operator) -> None:
    """Literally, except for the program."""
    page = (REPOSITORY / "man/remo-broker.toml.5").read_text()
    blocks = dict(re.findall(r"\.Pa (\S+) :\n\.Bd -literal -offset indent\n(.*?)\.Ed", page, re.DOTALL))
    then = re.findall(r"^# (.*)$", page.partition("\nThen:\n")[2], re.MULTILINE)
    assert len(then) == 3
    for path, text in blocks.items():
        machine.write(path, text.replace("restic backup /home", "cp ${RESTIC_PASSWORD_FILE} /run/loaded-backup"))
    assert host.main_pid() == 0
    host.push({"RESTIC_PASSWORD": "zq"})
    assert host.main_pid() != 0  # systemd does not start the socket unit now
    try:
        for command in then:
            machine.run(command.split())
        machine.systemctl("start", "backup.service")
        assert machine.path("/run/loaded-backup").read_text() == "zq"
        assert machine.systemctl("is-active", "backup.timer") == "active"
    finally:
        machine.systemctl("disable", "--now", "backup.timer")
        machine.run(["sh", "-c", "rm -f /etc/systemd/system/backup.*"])


def test_a_unit_that_no_rule_names_does_not_start(machine: Machine, host: Operator) -> None:
    host.push({"PASSWORD": "x"})
    unit(machine, "other.service", "password")
    fails(machine, "other.service", "not_in_configuration")
    unit(machine, "load@two.service", "other")
    fails(machine, "load@two.service", "not_in_configuration", "other")
    said = machine.run(["systemctl", "status", "other.service"], check=False).stdout
    assert "CREDENTIALS" in said
    explained = machine.run(["journalctl", "-x", "-u", SERVICE]).stdout
    assert "Unit other.service was refused credential password (not_in_configuration)." in explained
    assert "remo-brokerctl explain --unit UNIT CREDENTIAL" in explained


def test_a_unit_whose_name_leaves_no_room_in_the_address_does_not_start(machine: Machine, host: Operator) -> None:
    """systemd cannot bind it, so the broker gets no request. The longest names that fit are
    served."""
    host.push({"PASSWORD": "zq"})
    for length in (255, 90):
        name = f"load@{'x' * (length - len('load@.service'))}.service"
        unit(machine, name, "password")
        machine.systemctl("start", name, check=False)
        shown = machine.show(name, "ActiveState", "ExecMainStatus")
        assert shown == {"ActiveState": "failed", "ExecMainStatus": EXIT_CREDENTIALS}
        assert not [one for one in refusals(machine) if one[0] == name]
        explained = machine.run(["remo-brokerctl", "explain", "--unit", name, "password"], check=False)
        assert explained.returncode == 1
        assert "names_too_long" in explained.stdout
    name = f"load@{'x' * (83 - len('load@.service') - len('password'))}.service"
    unit(machine, name, "password")
    machine.systemctl("start", name)
    assert loaded(machine, name, "password") == b"zq"


def test_a_missing_secret_keeps_the_unit_down(machine: Machine, host: Operator) -> None:
    host.push({"OTHER": "x"})
    unit(machine, "load@absent.service", "password")
    fails(machine, "load@absent.service", "not_in_snapshot")


def test_an_expired_secret_keeps_the_unit_down(machine: Machine, host: Operator) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
    host.do("push-creds", secrets={"PASSWORD": "x"}, expires={"PASSWORD": soon})
    unit(machine, "load@expired.service", "password")
    poll("it to expire", lambda: host.do("status")["secret_count"] == 0)
    fails(machine, "load@expired.service", "expired")


def test_a_missing_field_keeps_the_unit_down(machine: Machine, host: Operator) -> None:
    host.do("push-creds", secrets={"aws": {"key": "x"}})
    unit(machine, "load@field.service", "user")
    fails(machine, "load@field.service", "no_such_field", "user")


def test_without_a_push_in_time_the_unit_does_not_start(machine: Machine, host: Operator) -> None:
    host.configure("credentials_wait_seconds = 1\n" + RULES)
    unit(machine, "load@late.service", "password")
    fails(machine, "load@late.service", "no_snapshot")


def test_a_unit_that_is_stopped_while_it_waits_leaves_nothing_behind(machine: Machine, host: Operator) -> None:
    unit(machine, "load@gone.service", "password")
    machine.systemctl("start", "--no-block", "load@gone.service")
    poll("it to be kept", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] != "0")
    machine.systemctl("stop", "load@gone.service")
    poll("it to be dropped", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] == "0")


def test_two_units_wait_for_the_push_and_start(machine: Machine, host: Operator) -> None:
    for name in ("load@a.service", "load@b.service"):
        unit(machine, name, "password")
        machine.systemctl("start", "--no-block", name)
    poll("both to wait", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] == "2")
    host.push({"PASSWORD": "zq"})
    for name in ("load@a.service", "load@b.service"):
        assert loaded(machine, name, "password") == b"zq"


def test_units_at_boot_wait_for_the_sidecar_and_start(machine: Machine, host: Operator) -> None:
    names = ("load@a.service", "load@b.service")
    host.configure("credentials_wait_seconds = 300\n" + RULES)
    for name in names:
        unit(machine, name, "password", directory="/etc/systemd/system")
        machine.systemctl("enable", name)
    machine.write("/etc/remo-broker/sidecar.toml", '[[source]]\nfile = "/var/lib/vault.env"\n')
    machine.systemctl("enable", "remo-sidecar.service")
    machine.reboot(until="starting")
    poll("both to wait", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] == "2")
    assert {machine.show(name, "ActiveState")["ActiveState"] for name in names} == {"activating"}
    machine.write("/var/lib/vault.env", "PASSWORD=zq\n")
    try:
        for name in names:
            assert loaded(machine, name, "password") == b"zq"
    finally:
        machine.path("/var/lib/vault.env").unlink()


def test_a_broker_killed_while_a_unit_waits_answers_it_after_its_restart(machine: Machine, host: Operator) -> None:
    unit(machine, "load@killed.service", "password")
    machine.systemctl("start", "--no-block", "load@killed.service")
    poll("the broker", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] != "0")
    before = host.main_pid()
    machine.systemctl("kill", "--signal=KILL", SERVICE)
    poll("another broker", lambda: host.main_pid() not in (0, before))
    assert machine.show("load@killed.service", "ActiveState")["ActiveState"] == "activating"
    host.push({"PASSWORD": "after"})
    assert loaded(machine, "load@killed.service", "password") == b"after"


def test_a_broker_stopped_while_a_unit_waits_keeps_it_down(machine: Machine, host: Operator) -> None:
    unit(machine, "load@stopped.service", "password")
    machine.systemctl("start", "--no-block", "load@stopped.service")
    poll("the broker", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] != "0")
    machine.systemctl("restart", SERVICE)
    poll("the unit", lambda: machine.show("load@stopped.service", "ActiveState")["ActiveState"] == "failed")
    assert ("load@stopped.service", "password", "no_snapshot") in refusals(machine)


def test_a_broker_that_cannot_start_keeps_the_unit_down(machine: Machine, host: Operator) -> None:
    """It fails at once, not by a time limit, which many units do not have."""
    host.configure("nonsense = 1\n")
    unit(machine, "load@broken.service", "password")
    machine.systemctl("start", "load@broken.service", check=False)
    shown = machine.show("load@broken.service", "ActiveState", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": EXIT_CREDENTIALS}
    assert not machine.path("/run/loaded-load@broken/password").exists()
    assert "CREDENTIALS" in machine.run(["systemctl", "status", "load@broken.service"], check=False).stdout
    said = machine.run(["journalctl", "-x", "-u", SERVICE]).stdout
    assert "Credential password of unit load@broken.service was refused: the broker cannot start." in said
    assert "nonsense: unknown" in said
    assert ("load@broken.service", "password", "not_started") in refusals(machine)


def test_a_unit_that_waits_fails_when_the_next_broker_cannot_start(machine: Machine, host: Operator) -> None:
    unit(machine, "load@held.service", "password")
    machine.systemctl("start", "--no-block", "load@held.service")
    poll("the broker", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] != "0")
    host.configure("nonsense = 1\n")
    machine.systemctl("kill", "--signal=KILL", SERVICE)
    poll("the unit", lambda: machine.show("load@held.service", "ActiveState")["ActiveState"] == "failed")
    assert machine.show("load@held.service", "ExecMainStatus")["ExecMainStatus"] == EXIT_CREDENTIALS
    poll("it to be dropped", lambda: machine.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] == "0")


def test_many_credentials_of_one_unit_are_all_loaded(machine: Machine, host: Operator) -> None:
    """systemd asks for one after another. Since 254 it keeps them in a file system of 1 MiB, a
    page each."""
    version = int(machine.run(["systemctl", "--version"]).stdout.split()[1].partition(".")[0].partition("~")[0])
    names = [f"S{number}" for number in range(500 if version < 254 else 200)]
    host.configure('[credentials."load@many.service"]\n' + "".join(f'{name} = "{name}"\n' for name in names))
    host.push({name: f"value of {name}" for name in names})
    unit(machine, "load@many.service", *names)
    machine.systemctl("start", "load@many.service")
    assert loaded(machine, "load@many.service", "S199") == b"value of S199"
    given = [one for one in machine.journal("REMO_UNIT=load@many.service") if one["REMO_OUTCOME"] == "ok"]
    assert len(given) == len(names)


def test_a_reload_applies_new_rules(machine: Machine, host: Operator) -> None:
    host.push({"PASSWORD": "zq"})
    unit(machine, "new.service", "password")
    fails(machine, "new.service", "not_in_configuration")
    machine.write("/etc/remo-broker/config.toml", '[credentials."new.service"]\npassword = "PASSWORD"\n')
    machine.systemctl("reload", SERVICE)
    poll(
        "the rule",
        lambda: not machine.run(["remo-brokerctl", "check", "--credentials", "new.service"], check=False).returncode,
    )
    machine.systemctl("start", "new.service")
    assert loaded(machine, "new.service", "password") == b"zq"
    said = machine.run(["remo-brokerctl", "explain", "--unit", "new.service", "nothing"], check=False)
    assert said.returncode == 1
    assert "not_in_configuration" in said.stdout
