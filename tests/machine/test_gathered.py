"""Journals of two machines, gathered by systemd's own programs, reviewed as one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.machine import poll, unavailable
from tests.support.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.machine.conftest import Machines
    from tests.support.machine import Machine

REMOTE, UPLOAD = "/lib/systemd/systemd-journal-remote", "/lib/systemd/systemd-journal-upload"
PORT = 19532
GATHERED = "/var/log/journal/remote"
UPLOAD_SECONDS = 120


@contextlib.contextmanager
def named(machine: Machine, name: str) -> Iterator[None]:
    """Another host's name: the machines have this host's, both of them."""
    before = machine.run(["hostname"]).stdout.strip()

    def noticed() -> bool:
        machine.run(["logger", "--tag=named", "hello"])
        return bool(machine.journal("SYSLOG_IDENTIFIER=named", f"_HOSTNAME={name}"))

    machine.run(["hostname", name])
    try:
        poll("journald to notice the name", noticed)
        yield
    finally:
        machine.run(["hostname", before])


@contextlib.contextmanager
def collector(machine: Machine) -> Iterator[None]:
    """systemd-journal-remote, listening in `machine`."""
    machine.run(["mkdir", "-p", GATHERED])
    argv = [REMOTE, f"--listen-http=127.0.0.1:{PORT}", f"--output={GATHERED}", "--split-mode=host"]
    unit = ["systemd-run", "--quiet", "--unit=collector", "--collect"]
    machine.run([*unit, *argv])
    try:
        listening = f"0100007F:{PORT:04X}"
        poll("systemd-journal-remote to listen", lambda: listening in machine.run(["cat", "/proc/net/tcp"]).stdout)
        yield
    finally:
        machine.systemctl("stop", "collector.service")


def upload(host: Machine, to: Machine) -> None:
    """systemd-journal-upload on `host`, over the network of the collector: the machines share
    none."""
    host.run(["journalctl", "--sync"])
    enter = ["nsenter", "-t", str(host.leader), "-m", "-u", "-i", "-p", "-C", "-r", "-w"]
    enter.append(f"--net=/proc/{to.leader}/ns/net")
    argv = [UPLOAD, f"--url=http://127.0.0.1:{PORT}", "--follow=no", "--save-state=/run/upload-state"]
    done = subprocess.run([*enter, "--", *argv], capture_output=True, text=True, timeout=UPLOAD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def reviewed(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    argv = ["remo-brokerctl", "audit", f"--directory={GATHERED}", "--project=gathered", "-j", *arguments]
    return [json.loads(line) for line in machine.run(argv).stdout.splitlines()]


@pytest.mark.usefixtures("loopback")
def test_two_machines_are_reviewed_as_one(machine: Machine, machines: Machines) -> None:
    other = machines("dbus-broker")
    for program in (REMOTE, UPLOAD):
        if not machine.path(program).exists():
            unavailable(f"{program} is not in this machine")
    other.reset("remo-broker-admin.socket")
    # Records of other tests in these journals may be missing.
    since = f"--since=@{time.time():.6f}"
    hosts = {"alpha": (machine, "FIRST"), "beta": (other, "SECOND")}
    for name, (one, secret) in hosts.items():
        with named(one, name):
            operator = Operator(one)
            path = operator.register("gathered", [secret])
            operator.push({secret: "zqSecretzq"})
            one.ask(path, {"op": "get", "name": secret}, user="root")
            one.ask(path, {"op": "get", "name": "ELSEWHERE"}, user="root")
            # Any user may write such an entry; it does not come from a broker.
            forged = "MESSAGE=x\nREMO_EVENT=fetch\nREMO_PROJECT=gathered\nREMO_SECRET=FORGED\n"
            one.run(["logger", "--journald"], stdin=forged)
            one.run(["journalctl", "--sync"])
    with collector(machine):
        for one, _ in hosts.values():
            upload(one, machine)
    found = reviewed(machine)
    assert {(one["host"], one["secret"], one["outcome"]) for one in found} == {
        (name, secret, outcome)
        for name, (_, allowed) in hosts.items()
        for secret, outcome in ((allowed, "ok"), ("ELSEWHERE", "denied"))
    }
    table = machine.run(["remo-brokerctl", "audit", f"--directory={GATHERED}", "--project=gathered"]).stdout
    assert "HOST" in table.splitlines()[0]
    assert max(map(len, table.splitlines())) <= 100
    verify = ["remo-brokerctl", "audit", f"--directory={GATHERED}", "--verify", since]
    verified = machine.run(verify, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
