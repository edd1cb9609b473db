"""What a reader can do to other processes of its user once it has confined itself: nothing. Its
unit's filter is tried in a machine."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from remo_broker.manifest import confinement
from tests.process.manifest.test_child import ENVIRONMENT, PYTHON
from tests.support.machine import poll

if os.uname().machine not in confinement.SYSTEM_CALLS:
    pytest.skip(f"there is no filter for {os.uname().machine}", allow_module_level=True)

BEFORE = """
import fcntl, os, resource, struct, sys
from remo_broker.manifest.confinement import confine
confine()
other, (own, theirs) = int(sys.argv[1]), os.pipe()
"""


def refuses(expression: str) -> bool:
    """Whether it is refused to a confined process, whose neighbour has the pid `other`."""
    neighbour = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    script = f"{BEFORE}\ntry:\n    {expression}\nexcept PermissionError:\n    print('refused')\n"
    try:
        done = subprocess.run(
            [*PYTHON, "-c", script, str(neighbour.pid)], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
    finally:
        neighbour.communicate(b"\n")
    assert neighbour.returncode == 0
    return done.stdout == "refused\n"


@pytest.mark.parametrize(
    "expression",
    [
        "resource.prlimit(other, resource.RLIMIT_CORE)",
        "resource.prlimit(other, resource.RLIMIT_NOFILE, (3, 3))",
        "fcntl.fcntl(own, fcntl.F_SETOWN, other)",
        "fcntl.fcntl(own, 15, struct.pack('ii', 1, other))",  # F_SETOWN_EX
        "fcntl.fcntl(own, 10, 9)",  # F_SETSIG
        "fcntl.ioctl(own, 0x8901, struct.pack('i', other))",  # FIOSETOWN
        "fcntl.ioctl(own, 0x8902, struct.pack('i', other))",  # SIOCSPGRP
    ],
)
def test_what_reaches_another_process_is_refused(expression: str) -> None:
    assert refuses(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))",
        "resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))",
        "fcntl.fcntl(own, fcntl.F_GETFD)",
        "fcntl.ioctl(own, 0x541B, bytes(4))",  # FIONREAD
    ],
)
def test_the_reader_keeps_what_it_needs(expression: str) -> None:
    assert not refuses(expression)


def test_the_reader_confines_itself_before_it_has_a_request() -> None:
    with subprocess.Popen([*PYTHON, "-m", "remo_broker.manifest"], env=ENVIRONMENT, stdin=subprocess.PIPE) as reader:
        status = Path(f"/proc/{reader.pid}/status")
        before = Path("/proc/self/status").read_text()
        poll("the filter", lambda: _filters(status.read_text()) > _filters(before))


def _filters(status: str) -> int:
    return int(dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)["Seccomp_filters"])


@pytest.mark.parametrize("machine", confinement.SYSTEM_CALLS)
def test_every_path_through_the_filter_ends_in_a_return(machine: str) -> None:
    """For machines other than this one, too."""
    code = list(struct.iter_unpack("HBBI", confinement.program(machine)))
    assert {index + 1 + skip for index, one in enumerate(code) if one[0] == 0x15 for skip in one[1:3]} <= set(
        range(len(code))
    )
    assert code[-1][0] == 0x06
