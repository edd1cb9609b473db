"""The peer's identity in records, even if the peer tries to hide it or to imitate another."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, registration
from tests.support.machine import poll, unavailable

if TYPE_CHECKING:
    from tests.conftest import StartBroker

# Connects the socket on its standard input, sends a request, and exits at once: the other holder of
# the socket gets the reply.
_ASK_AND_END = """
import socket, sys
s = socket.socket(fileno=0)
s.connect(sys.argv[1].encode())
s.send(b'{"op":"get","name":"A"}\\n')
"""
_CONNECT_AND_STAY = """
import socket, sys, time
s = socket.socket(fileno=0)
s.connect(sys.argv[1].encode())
open("/proc/self/comm", "w").write(sys.argv[2])
print(flush=True)
sys.stdin = None
time.sleep(60)
"""
_ASK_AND_STAY = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1].encode())
s.send(b'{"op":"get","name":"A"}\\n')
open("/proc/self/comm", "w").write("second")
time.sleep(60)
"""
OWN_PROGRAM = os.readlink("/proc/self/exe")
_CLONE3 = 435  # the number of clone3(2), which glibc does not wrap


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    return start_broker(projects=[registration("myrepo", "A")])


def answered(client: socket.socket) -> None:
    client.settimeout(20)
    assert client.recv(4096)


def ask_and_end(broker: Broker, client: socket.socket) -> int:
    """The pid of a process that has sent a request over `client` and exited."""
    argv = [sys.executable, "-ISc", _ASK_AND_END, str(broker.project())]
    with subprocess.Popen(argv, stdin=client.fileno()) as process:
        assert process.wait(20) == 0
    return process.pid


def test_the_program_is_named(broker: Broker) -> None:
    broker.get("A")
    [record] = broker.records("fetch")
    assert record["REMO_PEER_COMM"] == pathlib.Path("/proc/self/comm").read_text().strip()
    # For another user's process, the kernel does not reveal it.
    assert record.get("REMO_PEER_EXE", OWN_PROGRAM) == OWN_PROGRAM


def test_an_operator_is_named_too(broker: Broker) -> None:
    broker.push({"A": "a"})
    [record] = broker.records("secrets.pushed")
    assert record["REMO_PEER_COMM"] == pathlib.Path("/proc/self/comm").read_text().strip()


def test_an_exited_peer_is_recorded_as_gone(broker: Broker) -> None:
    broker.signal(signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as client:
        pid = ask_and_end(broker, client)
        broker.signal(signal.SIGCONT)
        answered(client)
    [record] = broker.records("fetch")
    assert (record["REMO_PEER_PID"], record["REMO_PEER_GONE"]) == (str(pid), "1")
    assert not {"REMO_PEER_COMM", "REMO_PEER_EXE", "REMO_PEER_UNIT", "REMO_PEER_CONTAINER"} & set(record)


def test_a_process_that_reuses_the_pid_is_not_recorded(broker: Broker) -> None:
    broker.signal(signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as client:
        pid = ask_and_end(broker, client)
        bystander = with_pid(pid)
        try:
            broker.signal(signal.SIGCONT)
            answered(client)
        finally:
            os.kill(bystander, signal.SIGKILL)
            os.waitpid(bystander, 0)
    [record] = broker.records("fetch")
    assert (record["REMO_PEER_PID"], record["REMO_PEER_GONE"]) == (str(pid), "1")
    assert "sleep" not in json.dumps(record)


def test_two_processes_with_the_same_pid_are_told_apart(start_broker: StartBroker) -> None:
    """The first has exited while its connection was queued behind another; meanwhile the second,
    with the same pid, sends a request too."""
    broker = start_broker(projects=[registration("myrepo", "A"), registration("other", "A")])
    broker.signal(signal.SIGSTOP)
    status = pathlib.Path(f"/proc/{broker.pid}/status")
    poll("the broker to stop", lambda: "State:\tT" in status.read_text())
    with socket.socket(socket.AF_UNIX) as before, socket.socket(socket.AF_UNIX) as client:
        before.connect(str(broker.project()))
        pid = ask_and_end(broker, client)
        argv = [sys.executable, "-ISc", _ASK_AND_STAY, str(broker.project("other"))]
        second = with_pid(pid, argv)
        try:
            poll("the second to have connected", lambda: pathlib.Path(f"/proc/{second}/comm").read_text() == "second\n")
            broker.signal(signal.SIGCONT)
            answered(client)
        finally:
            os.kill(second, signal.SIGKILL)
            os.waitpid(second, 0)
    records = {one["REMO_PROJECT"]: one for one in broker.records("fetch")}
    assert {one["REMO_PEER_PID"] for one in records.values()} == {str(pid)}
    assert "REMO_PEER_COMM" not in records["myrepo"]
    assert records["myrepo"]["REMO_PEER_GONE"] == "1"
    assert records["other"]["REMO_PEER_COMM"] == "second"


def with_pid(pid: int, argv: list[str] = ["sleep", "60"]) -> int:  # noqa: B006 - not changed
    """Start `argv` as the process with this pid, which may be in use just now."""
    numbers = (ctypes.c_int32 * 1)(pid)
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size
    arguments = (ctypes.c_uint64 * 10)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(numbers), 1)
    libc = ctypes.CDLL(None, use_errno=True)

    def started() -> int:
        child: int = libc.syscall(_CLONE3, arguments, ctypes.sizeof(arguments))
        if child == 0:
            os.execvp(argv[0], argv)
        if child < 0 and ctypes.get_errno() != errno.EEXIST:
            unavailable(f"a pid cannot be chosen here: {os.strerror(ctypes.get_errno())}")
        return max(child, 0)

    return poll(f"the pid {pid} to be free", started)


def test_a_passed_connection_is_attributed_to_its_creator(broker: Broker) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        argv = [sys.executable, "-ISc", _CONNECT_AND_STAY, str(broker.project()), "connector"]
        with subprocess.Popen(argv, stdin=client.fileno(), stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()
                # This process sends a request over the other's connection.
                client.sendall(b'{"op":"get","name":"A"}\n')
                answered(client)
            finally:
                process.kill()
    [record] = broker.records("fetch")
    assert record["REMO_PEER_PID"] == str(process.pid)


def test_a_program_name_of_any_content_forges_nothing(broker: Broker) -> None:
    broker.signal(signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as client:
        argv = [sys.executable, "-ISc", _CONNECT_AND_STAY, str(broker.project()), "x\nREMO_X=1\x1b[1m"]
        with subprocess.Popen(argv, stdin=client.fileno(), stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()
                broker.signal(signal.SIGCONT)
                client.sendall(b'{"op":"get","name":"A"}\n')
                answered(client)
            finally:
                process.kill()
    [record] = broker.records("fetch")
    assert "REMO_X" not in record
    assert record["REMO_PEER_COMM"] == "x\\nREMO_X=1\\x1b[1m"


def test_thousands_of_connections_leave_no_descriptor(broker: Broker) -> None:
    broker.get("A")
    before = broker.descriptors()
    for _ in range(300):
        broker.get("A")
    poll("connections to end", lambda: broker.descriptors() <= before)
