"""The sidecar's unit in a booted machine: it keeps the broker supplied."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import poll, unavailable
from tests.support.operator import ADMIN, SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

SIDECAR = "remo-sidecar.service"
# Not in any file of the host, which the machine's disk would show too.
VALUE = f"zq{uuid.uuid4().hex}qz"
VAULT = "/var/lib/vault/vault.env"
KILLS = 5


def supply(machine: Machine, text: str, config: str = f'[[source]]\nfile = "{VAULT}"\n') -> None:
    """The sidecar with a file as its source."""
    machine.write(VAULT, text)
    machine.write("/etc/remo-broker/sidecar.toml", config)
    machine.systemctl("enable", "--now", SIDECAR)


def change(machine: Machine, text: str) -> None:
    machine.write(f"{VAULT}.new", text)
    machine.path(f"{VAULT}.new").rename(machine.path(VAULT))


def served(operator: Operator, value: str, project: str = "held", name: str = "A") -> None:
    def is_served() -> bool:
        try:
            return operator.get(project, name).get("value") == value
        except (OSError, ValueError):  # a broker just killed
            return False

    poll(f"{name} to be {value}", is_served)


def test_three_commands_from_a_bare_machine_to_a_secret_in_a_container(machine: Machine, operator: Operator) -> None:
    """After the installation, only `set` and `register`; the value is nowhere on the disk."""
    machine.systemctl("disable", "--now", "remo-broker-admin.socket")
    done = machine.run(["remo-sidecar", "set", "A"], stdin=f"{VALUE}\n")
    assert VALUE not in done.stdout + done.stderr
    operator.command("register", operator.manifest("held", ["A", "B"]))
    assert operator.get("held", "A")["value"] == VALUE
    # A binary value, and the effect of a second `set` on the first.
    machine.path("/root/key").write_bytes(b"\xff\x00\n")
    machine.run(["remo-sidecar", "set", "B", "--file", "/root/key"])
    machine.path("/root/key").unlink()
    assert operator.get("held", "B")["value_b64"] == "/wAK"
    assert operator.get("held", "A")["value"] == VALUE
    # A value that no project could fetch is not stored; and more sets in a row than systemd allows
    # starts.
    done = machine.run(["remo-sidecar", "set", "C"], stdin="\\" * 40_000, check=False)
    assert (done.returncode, "C: too long" in done.stderr) == (1, True)
    for _ in range(4):
        machine.run(["remo-sidecar", "set", "A"], stdin=f"{VALUE}\n")
    listed = json.loads(machine.run(["remo-sidecar", "--json=short", "list"]).stdout)
    assert [one["name"] for one in listed] == ["A", "B"]
    # Everything written to the disk since the boot, including the journal.
    machine.run(["journalctl", "--sync"])
    assert machine.files_with(VALUE) == []
    machine.write("/var/tmp/probe", VALUE)
    assert machine.files_with(VALUE) == [f"{machine.written}/var/tmp/probe"]
    assert oct(machine.path("/etc/remo-broker/secrets").stat().st_mode & 0o777) == "0o700"
    machine.run(["remo-sidecar", "remove", "A"])
    assert operator.get("held", "A")["reason"] == "not_in_snapshot"
    assert "value_b64" in operator.get("held", "B")
    # A source given by a drop-in also keeps the service running, and so the broker supplied.
    machine.write("/var/lib/other.env", "A=other\n")
    drop_in = f"/run/systemd/system/{SIDECAR}.d/source.conf"
    machine.write(drop_in, "[Service]\nExecStart=\nExecStart=/usr/bin/remo-sidecar run --file /var/lib/other.env\n")
    machine.systemctl("daemon-reload")
    machine.run(["remo-sidecar", "remove", "B"])
    assert operator.get("held", "B")["reason"] == "not_in_snapshot"
    assert operator.get("held", "A")["value"] == "other"
    machine.path(drop_in).unlink()
    machine.systemctl("daemon-reload")
    machine.run(["remo-sidecar", "set", "B"], stdin="b")
    machine.run(["remo-sidecar", "remove", "B"])
    assert operator.get("held", "B")["reason"] == "no_snapshot"
    assert machine.systemctl("is-enabled", SIDECAR, check=False) == "disabled"
    assert machine.run(["remo-sidecar", "remove", "B"], check=False).returncode == 1


def test_the_unit_is_hardened_and_reports_its_status(machine: Machine, operator: Operator) -> None:
    operator.register("held", ["A"])
    supply(machine, "A=1\n")
    served(operator, "1")
    text = machine.show(SIDECAR, "StatusText")["StatusText"]
    assert "Last push: 1 secret, generation 1" in text
    assert f"fine: source 1 ({VAULT})" in text
    pid = machine.show(SIDECAR, "MainPID")["MainPID"]
    status = dict(line.split(":\t", 1) for line in machine.run(["cat", f"/proc/{pid}/status"]).stdout.splitlines())
    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")} == {"0000000000000000"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["Uid"].split()[0]) == machine.ids("remo-sidecar")[0]
    shown = machine.run(["systemd-analyze", "security", "--no-pager", SIDECAR]).stdout
    exposure = float(shown.rstrip().splitlines()[-1].partition(": ")[2].split()[0])
    assert exposure <= 1.5
    # No process of its own user can trace it.
    peek = machine.run(["cat", f"/proc/{pid}/environ"], user="remo-sidecar", check=False)
    assert peek.returncode != 0
    machine.systemctl("reload", SIDECAR)
    machine.systemctl("restart", SIDECAR)
    assert operator.get("held", "A")["value"] == "1", "ready means pushed"


def test_a_broker_that_is_killed_is_supplied_again(machine: Machine, operator: Operator) -> None:
    operator.register("held", ["A"])
    supply(machine, "A=1\n")
    served(operator, "1")
    for number in range(KILLS):
        machine.systemctl("kill", "--signal=KILL", SERVICE)
        served(operator, "1")
        change(machine, f"A=in between {number}\n".replace(" ", "-"))
        served(operator, f"in-between-{number}")
        change(machine, "A=1\n")
        served(operator, "1")
    assert machine.show(SIDECAR, "NRestarts")["NRestarts"] == "0"


def test_a_clear_stays_in_force_and_a_restarted_broker_is_supplied(machine: Machine, operator: Operator) -> None:
    operator.register("held", ["A"])
    supply(machine, "A=1\n")
    served(operator, "1")
    machine.run(["remo-brokerctl", "clear"])
    poll("it to be seen", lambda: "another process's clear" in machine.show(SIDECAR, "StatusText")["StatusText"])
    time.sleep(1)
    assert operator.get("held", "A")["reason"] == "no_snapshot"
    machine.systemctl("restart", SERVICE)
    served(operator, "1")


def test_after_a_reboot_the_broker_is_supplied(machine: Machine, operator: Operator) -> None:
    """After an upgrade too: see test_older_version."""
    machine.run(["remo-sidecar", "set", "A"], stdin="sealed")
    operator.command("register", operator.manifest("held", ["A"]))
    served(operator, "sealed")
    machine.reboot()
    served(operator, "sealed")


def test_a_socket_that_is_missing_at_boot_and_comes_later(machine: Machine, operator: Operator) -> None:
    operator.register("held", ["A"])
    machine.systemctl("stop", "remo-broker-admin.socket", SERVICE)
    operator.override(SIDECAR, "[Unit]\nWants=\n")
    machine.systemctl("mask", "--runtime", "remo-broker-admin.socket")
    try:
        supply(machine, "A=1\n")
        assert "no broker" in machine.show(SIDECAR, "StatusText")["StatusText"]
    finally:
        machine.systemctl("unmask", "--runtime", "remo-broker-admin.socket")
    machine.systemctl("start", "remo-broker-admin.socket")
    poll("the socket", machine.path(ADMIN).exists)
    served(operator, "1")


def test_a_password_store(machine: Machine, operator: Operator) -> None:
    """pass and gpg as Debian has them, in the unit's sandbox."""
    for program in ("pass", "gpg"):
        if machine.run(["sh", "-c", f"command -v {program}"], check=False).returncode:
            unavailable(f"{program} is not installed here: ./run test installs it")
    operator.register("held", ["A"])
    home = "/var/lib/vault"
    user, group = machine.ids("remo-sidecar")
    machine.path(home).mkdir(parents=True, exist_ok=True)
    machine.run(["chown", f"{user}:{group}", home])
    env = {"HOME": home, "GNUPGHOME": f"{home}/gnupg", "PASSWORD_STORE_DIR": f"{home}/store"}
    shell = (
        "umask 077; mkdir -p $GNUPGHOME; "
        "gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-gen-key owner default default never; "
        "pass init owner; echo sealed | pass insert -e A"
    )
    machine.run(["sh", "-c", shell], user="remo-sidecar", env=env, timeout=60)
    operator.override(
        SIDECAR,
        "[Service]\n"
        + "".join(f"Environment={name}={value}\n" for name, value in env.items())
        + f"ReadWritePaths={home}\n",
    )
    machine.write(f"{home}/show", '#!/bin/sh\nprintf \'{"A": "%s"}\' "$(pass show A)"\n')
    machine.path(f"{home}/show").chmod(0o755)
    config = f'[[source]]\ncommand = ["{home}/show"]\nwatch = ["{home}/store"]\n'
    machine.write("/etc/remo-broker/sidecar.toml", config)
    machine.systemctl("enable", "--now", SIDECAR)
    try:
        served(operator, "sealed")
    except TimeoutError:
        pytest.fail(machine.run(["journalctl", "-u", SIDECAR, "-n", "30", "--no-pager"]).stdout)
    machine.run(["sh", "-c", "echo changed | pass insert -e -f A"], user="remo-sidecar", env=env, timeout=60)
    served(operator, "changed")
