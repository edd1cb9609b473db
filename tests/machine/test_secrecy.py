"""No process can read a secret out of the real unit, and no secret is written anywhere."""

from __future__ import annotations

import contextlib
import errno
import json
import pathlib
import re
import stat
import subprocess
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.cores import cores_piped_to
from tests.support.host_memory import require_memfd_secret, require_mlock
from tests.support.machine import poll
from tests.support.operator import ADMIN, SERVICE
from tests.support.scanner import PushedSecrets, Scanner, forms, make_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.machine import Machine
    from tests.support.operator import Operator

# All kinds and lengths of `make_secrets`, six times.
SECRETS = 300
NAMES = [f"S{number}" for number in range(SECRETS)]

# What a process of the same user tries against the process given as its argument; prints the
# errors, 0 for none.
ATTEMPTS = """
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

def call(function, *arguments):
    ctypes.set_errno(0)
    return 0 if function(*arguments) >= 0 else ctypes.get_errno()

def opened(name):
    try:
        os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
    except OSError as error:
        return error.errno
    return 0

page = ctypes.create_string_buffer(16)
here, there = Vector(ctypes.addressof(page), 16), Vector(int(sys.argv[2], 16), 16)
pidfd = os.pidfd_open(pid)
print("process_vm_readv", call(libc.process_vm_readv, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
print("pidfd_getfd", call(libc.syscall, 438, pidfd, 0, 0))
for name in ("mem", "maps", "environ", "fd", "map_files", "stack", "syscall"):
    print(name, opened(name))
print("ptrace", call(libc.ptrace, 0x4206, pid, None, None))  # PTRACE_SEIZE, which does not stop it
"""


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Scanner:
    return Scanner(tmp_path_factory.mktemp("scanner"))


@pytest.fixture
def proc(machine: Machine, operator: Operator) -> pathlib.Path:
    """The running broker's directory in /proc."""
    operator.do("status")
    return machine.path(f"/proc/{operator.main_pid()}")


def push(machine: Machine, secrets: PushedSecrets) -> None:
    with machine.connect(ADMIN) as client, client.makefile("rb") as answers:
        client.sendall(secrets.line())
        assert json.loads(answers.readline())["secret_count"] == len(secrets.names)


def fetch_all(machine: Machine, operator: Operator, secrets: PushedSecrets) -> None:
    with machine.connect(operator.socket("app")) as client, client.makefile("rb") as answers:
        for name in secrets.names:
            client.sendall(json.dumps({"op": "get", "name": name}).encode() + b"\n")
            answer = json.loads(answers.readline())
            assert answer["ok"]


def notes(machine: Machine) -> list[str]:
    """The running broker's log lines, without audit records and what systemd says in its process
    before it."""
    invocation = machine.show(SERVICE, "InvocationID")["InvocationID"]
    entries = machine.journal(f"_SYSTEMD_INVOCATION_ID={invocation}", f"_SYSTEMD_UNIT={SERVICE}")
    return [
        entry["MESSAGE"]
        for entry in entries
        if "REMO_EVENT" not in entry and not entry["SYSLOG_IDENTIFIER"].startswith("(")
    ]


def without_memfd_secret(operator: Operator, more: str = "") -> None:
    """The unit as on a kernel that lacks the call, from the next start on."""
    operator.override(SERVICE, f"[Service]\nSystemCallFilter=~memfd_secret\n{more}")


# --- memory


def test_root_finds_nothing(machine: Machine, operator: Operator, scanner: Scanner) -> None:
    """Hundreds of secrets are loaded and fetched: none is in the process's readable memory, then or
    afterwards."""
    require_memfd_secret()
    began = time.time() - 1  # by the clock of file systems
    operator.configure("rate_limit_per_second = 0\n")
    operator.register("app", NAMES)
    process = machine.path(f"/proc/{operator.main_pid()}")
    secrets, others = make_secrets(SECRETS, "unit"), make_secrets(SECRETS, "unit, other")
    before = scanner.scan(process, secrets.values)
    push(machine, secrets)
    fetch_all(machine, operator, secrets)
    loaded = scanner.scan(process, secrets.values)
    assert not loaded.hits
    assert loaded.unreadable_bytes > before.unreadable_bytes
    push(machine, others)
    fetch_all(machine, operator, others)
    operator.do("clear-creds")
    assert not scanner.scan(process, secrets.values + others.values).hits
    assert notes(machine) == []
    assert_written_nowhere(machine, began, secrets.values)


def test_fallback_has_one_copy(machine: Machine, operator: Operator, scanner: Scanner) -> None:
    require_mlock()
    without_memfd_secret(operator)
    operator.configure("rate_limit_per_second = 0\n")
    operator.register("app", NAMES)
    assert operator.do("status")["memory_protection"] == "mlock"
    assert [note for note in notes(machine) if "secrets are kept in memory with protection 'mlock'" in note]
    process = machine.path(f"/proc/{operator.main_pid()}")
    secrets, others = make_secrets(SECRETS, "fallback"), make_secrets(SECRETS, "fallback, other")
    push(machine, secrets)
    fetch_all(machine, operator, secrets)
    hits = scanner.scan(process, secrets.values).hits
    assert all(hit.whole for hit in hits)
    copies = Counter(hit.value for hit in hits)
    assert len(copies) == len(secrets.values)
    assert set(copies.values()) == {1}
    push(machine, others)
    assert not scanner.scan(process, secrets.values).hits
    operator.do("clear-creds")
    assert not scanner.scan(process, secrets.values + others.values).hits


def test_no_memory_to_lock(machine: Machine, operator: Operator) -> None:
    """If there is too little of it, the status, the journal and systemctl report that, and it
    still serves."""
    without_memfd_secret(operator, "LimitMEMLOCK=64K\n")
    operator.register("app", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    assert operator.get("app", "TOKEN")["value"] == "value"
    assert operator.do("status")["memory_protection"] == "none"
    assert [note for note in notes(machine) if "protection 'none'" in note]
    poll("systemctl to tell", lambda: "memory none" in machine.show(SERVICE, "StatusText")["StatusText"])


def assert_written_nowhere(machine: Machine, since: float, values: list[str | bytes]) -> None:
    """Assert that the values are in no file written since then, and in no entry of the journal."""
    machine.run(["journalctl", "--sync"])
    journal = machine.run(["journalctl", "--output=export", "--all", "--quiet", f"--since=@{since}"]).stdout.encode()
    files = []
    for top in (machine.written, *map(machine.path, ("/run", "/tmp", "/dev/shm"))):
        for file in top.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                status = file.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime >= since:
                    files.append(file)
    assert {"system.journal", "registrations.json"} <= {file.name for file in files}
    assert "(standard input)" in holding([b"secrets.pushed"], files, journal)
    assert holding([form for value in values for _, form in forms(value)], files, journal) == set()


def holding(texts: Iterable[bytes], files: list[pathlib.Path], journal: bytes) -> set[str]:
    """Which of these have one of the texts in them, or a line of 16 bytes or more of one."""
    parts = {part for text in texts for part in text.split(b"\n") if len(part) >= min(len(text), 16)}
    with tempfile.NamedTemporaryFile() as patterns:
        patterns.write(b"\n".join(sorted(parts)))
        patterns.flush()
        # Last, the patterns themselves: grep has got through all. It exits with 2 if a file is gone.
        command = ["grep", "--no-messages", "-alF", f"--file={patterns.name}", "-", *map(str, files), patterns.name]
        done = subprocess.run(command, input=journal, stdout=subprocess.PIPE, env={"LC_ALL": "C"}, check=False)
    *found, last = done.stdout.decode().splitlines()
    assert last == patterns.name
    return set(found)


def test_settings_of_the_allocator(proc: pathlib.Path, machine: Machine) -> None:
    # An older C library has terminated each of its settings.
    environment = re.split(rb"[\0:]", (proc / "environ").read_bytes())
    assert b"PYTHONMALLOC=malloc" in environment
    assert b"GLIBC_TUNABLES=glibc.malloc.perturb=165" in environment
    assert not [note for note in notes(machine) if "Freed memory" in note]


# --- the process


def attempt(machine: Machine, pid: int, address: str, user: str) -> dict[str, int]:
    shown = machine.run(["/usr/bin/python3", "-ISc", ATTEMPTS, str(pid), address], user=user).stdout
    return {name: int(number) for name, number in (line.split() for line in shown.splitlines())}


def heap_of(directory: pathlib.Path) -> str:
    found = re.search(r"^([0-9a-f]+)-.*\[heap\]$", (directory / "maps").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@contextlib.contextmanager
def other_process(machine: Machine, user: str) -> Iterator[int]:
    """An ordinary process of that user; its number in the machine."""
    process = machine.popen(
        ["/usr/bin/python3", "-ISc", "import os; print(os.getpid(), flush=True); input()"], user=user
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    try:
        yield pid
    finally:
        machine.run(["kill", "-KILL", str(pid)], check=False)  # this process is only the entry into the machine
        process.communicate()


def test_the_same_user_may_not_read_its_memory(machine: Machine, operator: Operator, proc: pathlib.Path) -> None:
    """Neither with ptrace nor by what /proc shows, nor by taking a descriptor, which would be that of the memory;
    not even from the broker's group, which no other process has."""
    operator.push({"TOKEN": "value"})
    user = "remo-broker:remo-broker-private"
    with other_process(machine, user) as pid:
        allowed = attempt(machine, pid, heap_of(machine.path(f"/proc/{pid}")), user)
    open_to_the_user = {name for name, number in allowed.items() if number == 0}
    # A container's filter may refuse pidfd_getfd(2).
    assert {"ptrace", "process_vm_readv", "mem", "maps", "environ", "fd"} <= open_to_the_user
    refused = attempt(machine, operator.main_pid(), heap_of(proc), user)
    assert {refused[name] for name in open_to_the_user} <= {errno.EPERM, errno.EACCES}
    assert operator.do("status")["secret_count"] == 1


def test_no_core(machine: Machine, operator: Operator, tmp_path: pathlib.Path) -> None:
    """Even if cores are piped to a program, to which no size limit applies."""
    operator.push({"TOKEN": "value"})
    handler = tmp_path / "handler"
    handler.write_text(f"#!/bin/sh\ncat >{tmp_path}/core.$(cat /proc/sys/kernel/random/uuid)\n")
    handler.chmod(0o755)
    broken = operator.main_pid()
    with cores_piped_to(handler):
        machine.run(["kill", "-SEGV", str(broken)])
        poll("the broker to be started again", lambda: operator.main_pid() not in (0, broken))
        assert not list(tmp_path.glob("core.*"))
        with other_process(machine, "remo-broker") as pid:
            machine.run(["kill", "-SEGV", str(pid)])
            poll("the other's core", lambda: list(tmp_path.glob("core.*")))


def test_no_core_before_the_broker_forbids_them_itself(
    machine: Machine, operator: Operator, tmp_path: pathlib.Path
) -> None:
    """By the unit's limit alone, which covers the interpreter before the broker's first line."""
    handler = tmp_path / "handler"
    handler.write_text(f"#!/bin/sh\ncat >{tmp_path}/core.$1\n")  # the pid in the machine
    handler.chmod(0o755)
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    operator.override(
        SERVICE, f"[Service]\nType=exec\nRestart=no\nExecStart=\nExecStart=/usr/bin/python3 -SsP -c '{crash}'\n"
    )
    with cores_piped_to(handler):
        machine.systemctl("start", SERVICE, check=False)
        poll("it to crash", lambda: machine.show(SERVICE, "ExecMainStatus")["ExecMainStatus"] == "11")
        with other_process(machine, "remo-broker") as pid:
            machine.run(["kill", "-SEGV", str(pid)])
            poll("the other's core", (tmp_path / f"core.{pid}").exists)
        crashed = machine.show(SERVICE, "ExecMainPID")["ExecMainPID"]
        assert int(crashed)
        assert not (tmp_path / f"core.{crashed}").exists()


def test_no_swap(proc: pathlib.Path, machine: Machine, operator: Operator) -> None:
    operator.push({"TOKEN": "value"})
    assert re.search(r"^VmSwap:\s+0 kB$", (proc / "status").read_text(), re.MULTILINE)
    assert machine.show(SERVICE, "MemorySwapMax")["MemorySwapMax"] == "0"
