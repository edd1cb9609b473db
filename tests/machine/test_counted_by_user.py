"""What the kernel limits by user, over all containers without a user namespace of their own: root of
one may be any user, and use it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

BROKER, READER = "remo-broker", "remo-broker-manifest"
# Prints a line, and keeps a thousand descriptors in flight until its standard input ends.
IN_FLIGHT = """
import socket, sys
left, right = socket.socketpair()
for _ in range(10):
    socket.send_fds(left, [b"x"], [0] * 100)
print("sent", flush=True)
sys.stdin.read()
"""
# Prints a line once twenty processes run, until its standard input ends.
PROCESSES = """
import os, sys
for _ in range(19):
    if os.fork() == 0:
        break
else:
    print("running", flush=True)
sys.stdin.read()
"""


def test_descriptors_that_root_keeps_in_flight_prevent_no_registration(machine: Machine, operator: Operator) -> None:
    """The kernel limits them by user, and root of a container is often the host's."""
    hostile = machine.popen(["/usr/bin/python3", "-ISc", IN_FLIGHT])
    try:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == "sent\n"
        operator.register("app", ["A"])
        assert operator.do("unregister", name="app")["ok"]
    finally:
        hostile.communicate(timeout=60)


@pytest.mark.parametrize("user", [BROKER, READER])
def test_processes_of_the_same_uid_prevent_neither_a_start_nor_a_registration(
    machine: Machine, operator: Operator, user: str
) -> None:
    """The kernel limits them by user, and root of a container may have any. The limit is usually so
    high that it takes gigabytes to reach it."""
    low = "/run/systemd/system.conf.d/low.conf"
    machine.write(low, "[Manager]\nDefaultLimitNPROC=10\n")
    machine.systemctl("daemon-reload")
    hostile = machine.popen(["/usr/bin/python3", "-ISc", PROCESSES], user=f"{user}:nogroup")
    try:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == "running\n"
        machine.systemctl("restart", SERVICE)
        operator.register("app", ["A"])
    finally:
        hostile.communicate(timeout=60)
        machine.path(low).unlink()
        machine.systemctl("daemon-reload")
