"""The process exposes nothing: no dump, no ptrace, no swap, whatever kind of memory it has.

What another process of the same user may do is tested in a booted systemd:
tests/machine/test_secrecy.py.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.secrets.memory import Arena
from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from tests.support.broker import Broker, inside, registration
from tests.support.cores import cores_piped_to
from tests.support.host_memory import require_memfd_secret, require_mlock
from tests.support.machine import poll, unavailable
from tests.support.privileges import require_tracing
from tests.support.scanner import Scanner, make_secrets

if TYPE_CHECKING:
    from tests.conftest import StartBroker


def mappings(pid: int, name: str) -> list[tuple[int, int]]:
    """Where files of that name are mapped."""
    found = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        if name in line:
            start, end = line.split()[0].split("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def status_of(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def comm(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/comm").read_text()


@pytest.fixture
def loaded(start_broker: StartBroker) -> Broker:
    """A broker with a hundred secrets, under whatever protection this kernel has."""
    broker = start_broker(projects=[registration("myrepo", "S0")])
    assert broker.ask(make_secrets(100, "process").line())["ok"]
    return broker


@pytest.fixture
def secret(loaded: Broker) -> Broker:
    require_memfd_secret()
    return loaded


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read_remotely(pid: int, address: int) -> int:
    """`process_vm_readv` of one page as root; 0 or the error."""
    page = ctypes.create_string_buffer(4096)
    here, there = _Vector(ctypes.addressof(page), 4096), _Vector(address, 4096)
    libc = ctypes.CDLL(None, use_errno=True)
    count = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return ctypes.get_errno() if count < 0 else 0


def test_not_even_root_reads_secret_memory(secret: Broker) -> None:
    """By any interface of the kernel to another process's memory."""
    require_tracing()
    heap = mappings(secret.pid, "[heap]")
    # Memory of closed connections goes back to the kernel; the push and its bundles stay.
    poll("the connections to be closed", lambda: len(mappings(secret.pid, "/secretmem")) <= 2 + Arena.SPARES)
    secret_memory = mappings(secret.pid, "/secretmem")
    assert read_remotely(secret.pid, heap[0][0]) == 0
    assert secret_memory
    for start, end in secret_memory:
        assert read_remotely(secret.pid, start) == errno.EFAULT
        with open(f"/proc/{secret.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            with pytest.raises(OSError, match="Input/output error"):
                memory.read(4096)
        with pytest.raises(OSError, match="No such device or address"):
            os.open(f"/proc/{secret.pid}/map_files/{start:x}-{end:x}", os.O_RDONLY)
    descriptors = pathlib.Path(f"/proc/{secret.pid}/fd")
    opened = [one for one in descriptors.iterdir() if "/secretmem" in os.readlink(one)]
    assert opened  # mmap objects keep the descriptor that they were made of
    for one in opened:
        with pytest.raises(OSError, match="No such device or address"):
            os.open(one, os.O_RDWR)


def test_no_swap(loaded: Broker) -> None:
    """Heap pages may be swapped, secret ones never; at this size nothing has been."""
    status = status_of(loaded.pid)
    assert status["VmSwap"] == "0 kB"
    smaps = inside(loaded.pid, "smaps").read_text()
    flags = re.findall(r"/secretmem.*?VmFlags: ([^\n]*)", smaps, re.DOTALL)
    assert bool(flags) == (loaded.status()["memory_protection"] == "memfd_secret")
    assert all({"lo", "dd"} <= set(one.split()) for one in flags)  # locked, not dumped


def test_fallback_is_locked_and_not_dumped(start_broker: StartBroker, without_memfd_secret: tuple[str, ...]) -> None:
    require_mlock()
    broker = start_broker(through=without_memfd_secret)
    assert broker.ask(make_secrets(100, "locked").line())["ok"]
    status = status_of(broker.pid)
    assert int(status["VmLck"].split()[0]) >= 1024
    assert status["VmSwap"] == "0 kB"
    assert any(
        "secrets are kept in memory with protection 'mlock'" in one.get("MESSAGE", "") for one in broker.records()
    )
    (started,) = broker.records("broker.started")
    assert started["REMO_MEMORY_PROTECTION"] == "mlock"
    smaps = inside(broker.pid, "smaps").read_text()
    flags = [set(one.split()) for one in re.findall(r"VmFlags: ([^\n]*)", smaps)]
    assert any({"lo", "dd", "dc"} <= one for one in flags)  # locked, not dumped, not copied by a fork


def test_no_memory_to_lock(start_broker: StartBroker, without_memfd_secret: tuple[str, ...]) -> None:
    """It serves nevertheless, and reports the problem."""
    limits = ("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    if os.geteuid() != 0:
        unavailable("lowering the limit for a process that may exceed it takes root")
    broker = start_broker(through=(*limits, *without_memfd_secret), projects=[registration("myrepo", "A")])
    assert broker.status()["memory_protection"] == "none"
    broker.push({"A": "value"})
    assert broker.get("A")["value"] == "value"
    assert any("protection 'none'" in one.get("MESSAGE", "") for one in broker.records())


def test_no_core(loaded: Broker, directory: pathlib.Path) -> None:
    """Not even one that is piped to a program, to which limits do not apply."""
    if os.geteuid() != 0:
        unavailable("choosing who gets the cores takes root")
    handler = directory / "handler"
    handler.write_text(f"#!/bin/sh\ncat >{directory}/core.$1\n")
    handler.chmod(0o755)
    with cores_piped_to(handler):
        other = subprocess.Popen(["prlimit", "--core=0:0", sys.executable, "-c", "import signal; signal.pause()"])
        poll(
            "the other process to run", lambda: "python" in comm(other.pid) and status_of(other.pid)["State"][0] == "S"
        )
        for process in (other, loaded.process):
            process.send_signal(signal.SIGSEGV)
            assert process.wait() == -signal.SIGSEGV
        poll("the other's core", (directory / f"core.{other.pid}").exists)
        assert not (directory / f"core.{loaded.pid}").exists()


def test_settings_of_the_allocator_are_applied(start_broker: StartBroker) -> None:
    """Started without them, the broker executes itself again."""
    broker = start_broker(environment=dict.fromkeys(MEMORY_ENVIRONMENT, ""))
    assert broker.status()["ok"]
    # glibc before 2.39 splits the tunables into separate strings.
    environment = re.split("[\0:]", inside(broker.pid, "environ").read_text())
    assert {
        "PYTHONMALLOC=malloc",
        "GLIBC_TUNABLES=glibc.malloc.perturb=165",
        "glibc.malloc.tcache_count=0",
        "glibc.malloc.arena_max=1",
        "LD_BIND_NOW=1",
    } <= set(environment)
    assert not [note for note in broker.notes() if "Freed memory" in note]


@pytest.mark.parametrize("environment", [{"PYTHONMALLOC": "pymalloc"}, {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}])
def test_settings_that_are_not_in_force_are_reported(start_broker: StartBroker, environment: dict[str, str]) -> None:
    broker = start_broker(environment={**environment, "REMO_BROKER_REEXECUTED": "1"})
    assert broker.status()["ok"]  # it has started, and written its log
    assert [note for note in broker.notes() if "Freed memory is not overwritten" in note]


def test_with_full_support_nothing_is_reported(loaded: Broker, scanner: Scanner) -> None:
    """On a kernel with full support, the start logs nothing."""
    require_memfd_secret()
    assert loaded.notes() == []
