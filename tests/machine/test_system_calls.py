"""What a get costs the installed broker, in system calls counted by strace.

One more call fails the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import system_calls
from tests.support.machine import poll, unavailable
from tests.support.system_calls import CONNECTION, GET, TIMES, TO_JOURNALD, excess

if TYPE_CHECKING:
    from collections import Counter

    from tests.support.machine import Machine
    from tests.support.operator import Operator

# argv: socket, number of gets, whether each has its own connection. Prints when it is ready, and
# continues after a line of input.
_CLIENT = """
import socket, sys
path, times, fresh = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fresh"
def connect():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(path)
    return client
def get(client):
    client.sendall(b'{"op":"get","name":"A"}\\n')
    assert client.recv(4096).startswith(b'{"ok":true')
client = connect()
for warming in (True, False):
    for _ in range(times):
        if fresh:
            with connect() as one:
                get(one)
        else:
            get(client)
    if warming:
        print("warm", flush=True)
        sys.stdin.readline()
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(machine: Machine, operator: Operator) -> str:
    if not machine.path("/usr/bin/strace").exists():
        unavailable("strace is not installed in this machine")
    operator.configure("rate_limit_per_second = 0\n")
    machine.systemctl("restart", "remo-broker.service")
    path = operator.register("counted", ["A"])
    operator.push({"A": "a"})
    return path


def calls(machine: Machine, operator: Operator, path: str, how: str) -> Counter[str]:
    """For each system call, how often the broker made it for that many gets."""
    pid = operator.main_pid()
    client = machine.popen(["/usr/bin/python3", "-ISc", _CLIENT, path, str(TIMES), how])
    strace = None
    try:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "warm\n"
        strace = machine.popen(["sh", "-c", f"echo $$ >/run/strace.pid; exec strace -f -q -o /run/trace -p {pid}"])
        status = machine.path(f"/proc/{pid}/status")
        poll("strace to attach", lambda: "\nTracerPid:\t0\n" not in status.read_text())
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "done\n"
    finally:
        if strace is not None:
            machine.run(["sh", "-c", "kill -INT $(cat /run/strace.pid)"])
            strace.communicate(timeout=60)
        client.communicate(timeout=60)
    return system_calls.read_trace_of_broker(machine.path("/run/trace").read_text())


def test_system_calls_of_a_get_on_an_open_connection(machine: Machine, operator: Operator, path: str) -> None:
    made = calls(machine, operator, path, "open")
    assert made["sendto"] >= TIMES
    assert excess(made, GET, TO_JOURNALD) == {}


def test_system_calls_of_connect_get_and_close(machine: Machine, operator: Operator, path: str) -> None:
    made = calls(machine, operator, path, "fresh")
    assert made["accept4"] >= TIMES
    assert excess(made, CONNECTION, TO_JOURNALD, system_calls.of_peer()) == {}
