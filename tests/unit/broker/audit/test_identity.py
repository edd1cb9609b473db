"""The unit and the container, derived from the path of a control group; no path can forge them."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest

from remo_broker.broker.audit import identity
from remo_broker.broker.audit.identity import GONE, peer_identity, places
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


Pair: TypeAlias = "tuple[socket.socket, subprocess.Popen[bytes]]"

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        ("/system.slice/build.service", "build.service", None),
        ("/system.slice/build.service/worker", "build.service", None),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        ("/init.scope", "init.scope", None),
        ("/a/b", None, None),
        # Engines, with systemd's driver of control groups and without.
        (f"/system.slice/docker-{A}.scope", f"docker-{A}.scope", A),
        (f"/docker/{A}", None, A),
        (f"/machine.slice/libpod-{A}.scope/container", f"libpod-{A}.scope", A),
        (f"/libpod_parent/libpod-{A}", None, A),
        (f"/kubepods.slice/kubepods-burstable.slice/cri-containerd-{A}.scope", f"cri-containerd-{A}.scope", A),
        (f"/kubepods/besteffort/pod1/{A}", None, A),
        (f"/machine.slice/crio-{A}.scope", f"crio-{A}.scope", A),
        (f"/system.slice/nerdctl-{A}.scope", f"nerdctl-{A}.scope", A),
        (f"/default/{A}", None, A),
        ("/machine.slice/machine-web\\x2d1.scope/payload/system.slice/x.service", "machine-web\\x2d1.scope", "web-1"),
        ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn@web.service", "web"),
        ("/lxc.payload.web/init.scope", None, "web"),
        # conmon, which monitors a container, is not in it.
        (f"/machine.slice/libpod-conmon-{A}.scope", f"libpod-conmon-{A}.scope", None),
        # Rootless podman: the user's manager is the unit, so that the container is known for the user's.
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", "user@1000.service", A),
        # Names made within a container are ignored.
        (f"/system.slice/docker-{A}.scope/docker-{B}.scope", f"docker-{A}.scope", A),
        (f"/system.slice/docker-{A}.scope/system.slice/trusted.service", f"docker-{A}.scope", A),
        (f"/docker/{A}/system.slice/trusted.service", None, A),
        (f"/system.slice/attacker.service/docker-{B[:63]}.scope", "attacker.service", None),
        (f"/system.slice/docker-{A}x.scope", f"docker-{A}x.scope", None),
        (f"/system.slice/x-docker-{A}.scope", f"x-docker-{A}.scope", None),
        ("/../../system.slice/other.service", None, None),
        # The kernel allows such names, but no newline in one.
        ("/a:b/c d\x1b[31m.service", "c d\x1b[31m.service", None),
    ],
)
def test_unit_and_container_of_a_control_group(path: str, unit: str | None, container: str | None) -> None:
    unified = "/elsewhere.service" if unit or container else "/elsewhere"
    several = f"3:cpu:/elsewhere\n2:pids:/elsewhere\n1:name=systemd:{path}\n0::{unified}\n"
    for text in (f"0::{path}\n", several):
        found = dict(places(text.encode()))
        found.pop("REMO_PEER_USER_UNIT", None)
        found.pop("REMO_PEER_OWNER_UID", None)
        assert found == {
            name: value for name, value in (("REMO_PEER_UNIT", unit), ("REMO_PEER_CONTAINER", container)) if value
        }


def test_a_container_may_have_the_unified_hierarchy_where_the_host_has_systemds_own() -> None:
    unified = b"0::/system.slice/build.service\n"
    for own in (b"/", b"/payload"):
        text = b"1:name=systemd:" + own + b"\n" + unified
        assert dict(places(text)) == {"REMO_PEER_UNIT": "build.service"}
        assert identity.is_of(text, "build.service", own=unified)
    assert places(b"1:name=systemd:/../../system.slice/other.service\n" + unified) == []
    assert places(b"1:name=systemd:/\n0::/\n") == places(b"0::/\n") == places(b"1:name=systemd:/\n") == []


@pytest.mark.parametrize(
    ("path", "unit", "runs"),
    [
        ("/system.slice/build.service", "build.service", True),
        ("/system.slice/build.service/worker", "build.service", True),
        ("/system.slice/system-build.slice/build@a\\x2db.service", "build@a\\x2db.service", True),
        ("/system.slice/build.socket", "build.socket", True),
        ("/system.slice/_cpu.service", "cpu.service", True),
        ("/system.slice/__x.service", "_x.service", True),
        (f"/{'x' * 247}.service", f"{'x' * 247}.service", True),
        ("/", "build.service", False),
        ("/system.slice/other.service", "build.service", False),
        ("/system.slice/other.service/build.service", "build.service", False),
        ("/system.slice", "system.slice", False),
        ("/system.slice/__x.service", "x.service", False),
        ("/../build.service", "build.service", False),
        (f"/docker/{A}", "build.service", False),
        (f"/docker/{A}/build.service", "build.service", False),
        (f"/system.slice/docker-{A}.scope/system.slice/build.service", "build.service", False),
        ("/user.slice/user-0.slice/user@0.service/app.slice/build.service", "build.service", False),
    ],
)
def test_the_unit_of_a_process(path: str, unit: str, *, runs: bool) -> None:
    assert identity.is_of(f"0::{path}\n".encode(), unit, b"0::/system.slice/remo-broker.service\n") is runs


def test_where_nothing_assigns_groups_to_units_any_process_without_one_is_taken() -> None:
    assert identity.is_of(b"0::/\n", "build.service", own=b"0::/\n")
    assert not identity.is_of(b"0::/system.slice/other.service\n", "build.service", own=b"0::/\n")


def test_a_process_that_has_ended_runs_in_no_unit() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert identity.runs_in(process.pid, "build.service") is False


def test_a_users_own_unit_is_apart() -> None:
    path = "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service"
    assert dict(places(f"0::{path}\n".encode())) == {
        "REMO_PEER_UNIT": "user@1000.service",
        "REMO_PEER_USER_UNIT": "editor.service",
    }


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/user.slice/user-1000.slice/session-3.scope", "1000"),
        ("/user.slice/user-1000.slice/session-c1.scope/below", "1000"),
        ("/user.slice/user-1000.slice/user@1000.service/session-3.scope", None),
        ("/user.slice/user-1000.slice/session-3.scopes", None),
        (f"/system.slice/docker-{A}.scope/user.slice/user-0.slice/session-3.scope", None),
        ("/system.slice/attacker.service/user.slice/user-0.slice/session-3.scope", None),
    ],
)
def test_the_owner_of_a_session(path: str, owner: str | None) -> None:
    assert dict(places(f"0::{path}\n".encode())).get("REMO_PEER_OWNER_UID") == owner


# Takes each name that it reads.
_PEER = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1].encode())
for line in sys.stdin:
    with open("/proc/self/comm", "w") as file:
        file.write(line.rstrip())
    print(flush=True)
"""


@pytest.fixture
def pair(directory: pathlib.Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A connection, and the process at its other end."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "socket"))
        listening.listen()
        argv = [sys.executable, "-ISc", _PEER, str(directory / "socket")]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            connection, _ = listening.accept()
            with connection:
                yield connection, child
                child.kill()


def fields(data: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in data.decode("ascii").splitlines())


def test_a_living_peer_is_named(pair: Pair) -> None:
    connection, child = pair
    found = fields(peer_identity(connection, child.pid, os.getuid()))
    assert found["REMO_PEER_COMM"].startswith("python")
    assert found["REMO_PEER_EXE"] == os.readlink("/proc/self/exe")
    assert "REMO_PEER_GONE" not in found


def test_an_exited_peer_is_recorded_as_gone_and_nothing_else(pair: Pair) -> None:
    connection, child = pair
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert peer_identity(connection, child.pid, os.getuid()) == GONE  # a zombie
    child.wait()
    assert peer_identity(connection, child.pid, os.getuid()) == GONE


def test_a_reused_pid_identifies_no_process(pair: Pair) -> None:
    """This process takes the place of the one that has the peer's pid now."""
    connection, child = pair
    if not _has_peer_pidfd(connection):
        unavailable("the kernel has no SO_PEERPIDFD")
    child.kill()
    child.wait()
    assert peer_identity(connection, os.getpid(), os.getuid()) == GONE


def _has_peer_pidfd(connection: socket.socket) -> bool:
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, 77, 4)
    except OSError:
        return False
    os.close(struct.unpack("i", data)[0])
    return True


def test_without_a_pidfd_the_start_time_must_be_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, child = pair
    monkeypatch.setattr(identity, "SO_PEERPIDFD", 9999)  # as a kernel before 6.5 sees it
    assert fields(peer_identity(connection, child.pid, os.getuid()))["REMO_PEER_COMM"]
    times = iter([1, 2])
    monkeypatch.setattr(identity, "_start_time", lambda _pid: next(times))
    assert peer_identity(connection, child.pid, os.getuid()) == GONE


def test_a_peer_that_reconnects_is_identified_again(pair: Pair) -> None:
    """Its files in /proc are still open, but its name may have changed."""
    connection, child = pair
    first = fields(peer_identity(connection, child.pid, os.getuid()))
    if "REMO_PEER_PIDFD_INODE" not in first:
        unavailable("the kernel numbers no pidfds")
    assert identity._last.inode == int(first["REMO_PEER_PIDFD_INODE"])
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"renamed\n")
    child.stdin.flush()
    child.stdout.readline()
    again = fields(peer_identity(connection, child.pid, os.getuid()))
    assert again == {**first, "REMO_PEER_COMM": "renamed"}
    child.kill()
    child.wait()
    assert peer_identity(connection, child.pid, os.getuid()) == GONE
    assert identity._last.inode == 0


def test_alternating_peers_are_not_confused(pair: Pair) -> None:
    connection, child = pair
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(2):
            other = fields(peer_identity(connection, child.pid, os.getuid()))
            own = fields(peer_identity(ours, os.getpid(), os.getuid()))
            assert own["REMO_PEER_COMM"] == _comm().decode()
            assert own.get("REMO_PEER_PIDFD_INODE") != other.get("REMO_PEER_PIDFD_INODE", "")


def test_another_users_executable_is_left_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, child = pair
    monkeypatch.setattr(identity, "_own_uid", 4242)
    assert "REMO_PEER_EXE" not in fields(peer_identity(connection, child.pid, 4243))


def test_fields_that_may_not_be_read_are_omitted_and_the_peer_is_not_gone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError

    connection, child = pair
    monkeypatch.setattr(os, "open", denied)
    assert peer_identity(connection, child.pid, os.getuid()) == b""


def test_a_long_control_group_path_is_read_completely(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, child = pair
    whole = fields(peer_identity(connection, child.pid, os.getuid()))
    identity._last.close()
    monkeypatch.setattr(identity, "READ_SIZE", 7)
    monkeypatch.setattr(identity, "_known_places", {})
    assert fields(peer_identity(connection, child.pid, os.getuid())) == whole


def test_a_peer_without_a_pid_in_this_namespace_is_not_identified(pair: Pair) -> None:
    assert peer_identity(pair[0], 0, 0) == b""


@pytest.mark.parametrize("name", [b"a\nREMO_X=1", b"\x1b[31m", b"\xff\xfe", b"", b")) S 1", "пайтон".encode()])
def test_no_program_name_forges_a_field(name: bytes) -> None:
    ours, theirs = socket.socketpair()
    own = _comm()
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(name or b"\n")
        data = peer_identity(ours, os.getpid(), os.getuid())
    finally:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(own)
        ours.close()
        theirs.close()
    assert data.isascii()
    found = fields(data)
    assert "REMO_X" not in found
    assert found["REMO_PEER_COMM"].isprintable()


def _comm() -> bytes:
    with open("/proc/self/comm", "rb") as file:
        return file.read().rstrip(b"\n")
