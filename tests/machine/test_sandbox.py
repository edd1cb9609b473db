"""The units: systemd's verdict on them, and what the running broker may not do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from tests.support.host_memory import protection
from tests.support.machine import REPOSITORY
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

UNITS = (
    *("remo-broker.service", "remo-broker-admin.socket", "remo-broker-status.socket"),
    *("remo-broker-client@x.socket", "remo-broker-mount@x.socket", "remo-broker-gate.service"),
    *("remo-broker-bind.socket", "remo-broker-bind@x.service"),
    *("remo-broker-enable.socket", "remo-broker-enable@x.service"),
    *("remo-broker-manifest.socket", "remo-broker-manifest@x.service"),
    *("remo-broker-read-back.socket", "remo-broker-read-back@x.service"),
    *("remo-broker-first-seen.timer", "remo-broker-first-seen.service"),
)
MAX_EXPOSURE = 1.0


def test_units_verify_clean(machine: Machine) -> None:
    verified = machine.run(["systemd-analyze", "verify", "--man=no", *UNITS])
    assert verified.stdout + verified.stderr == ""


@pytest.mark.parametrize(
    "unit",
    [
        *(SERVICE, "remo-broker-bind@x.service", "remo-broker-manifest@x.service"),
        *("remo-broker-read-back@x.service", "remo-broker-first-seen.service", "remo-broker-enable@x.service"),
        "remo-broker-gate.service",
    ],
)
def test_exposure(machine: Machine, unit: str) -> None:
    shown = machine.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", shown)
    assert found is not None
    assert float(found[1]) <= MAX_EXPOSURE


def test_the_process_has_no_privilege(machine: Machine, operator: Operator) -> None:
    operator.do("status")
    lines = machine.path(f"/proc/{operator.main_pid()}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    uid, _ = machine.ids("remo-broker")
    gid = machine.gid("remo-broker-private")
    assert status["Uid"] == "\t".join([str(uid)] * 4)
    assert status["Gid"] == "\t".join([str(gid)] * 4)
    assert set(status["Groups"].split()) - {str(gid)} == {str(machine.gid("remo-broker"))}
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    limits = machine.path(f"/proc/{operator.main_pid()}/limits").read_text()
    # 1, so that the kernel does not pipe a core to a program either.
    assert re.search(r"Max core file size +1 +1 ", limits)


def test_files_visible_to_the_process(machine: Machine, operator: Operator) -> None:
    operator.do("status")
    enter = ["nsenter", "-t", str(operator.main_pid()), "-m", "-n", "--"]
    mounts = machine.run([*enter, "findmnt", "-rno", "TARGET,OPTIONS"]).stdout.splitlines()
    options = dict(line.split(" ", 1) for line in mounts)
    writable = {target for target, text in options.items() if text.split(",")[0] == "rw"}
    # Everything else is read-only, or only root's, or the container's own.
    foreign = ("/proc", "/sys", "/run/host/", "/dev/pts", "/dev/mqueue", "/dev/hugepages")
    assert {path for path in writable if not path.startswith(foreign)} == {"/var/lib/remo-broker"}
    assert "subset=pid" in options["/proc"]
    devices = set(machine.run([*enter, "ls", "/dev"]).stdout.split())
    assert not devices & {"kmsg", "mem", "vda", "sda", "kvm", "net"}
    links = machine.run([*enter, "cat", "/proc/self/net/dev"], check=False).stdout
    assert [line.split(":")[0].strip() for line in links.splitlines() if ":" in line] == ["lo"]


def test_the_units_environment_avoids_a_second_start(machine: Machine, operator: Operator) -> None:
    """The daemon executes itself again if the allocator's settings are missing; the unit sets
    them."""
    unit = (REPOSITORY / "units" / SERVICE).read_text()
    for name, value in MEMORY_ENVIRONMENT.items():
        assert f"Environment={name}={value}\n" in unit
    operator.do("status")
    environment = machine.path(f"/proc/{operator.main_pid()}/environ").read_text()
    assert "REMO_BROKER_REEXECUTED" not in environment


def test_memory_protection_is_in_force(operator: Operator) -> None:
    """The system call is not in systemd's @system-service: the unit lets it through."""
    assert operator.do("status")["memory_protection"] == protection()
