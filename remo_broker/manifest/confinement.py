"""Keeps the manifest reader from reaching other processes of its user: that is, other readers.

Its unit's filter refuses the calls that send signals. But systemd cannot refuse a call by its
arguments, and three that Python cannot do without also name another process: prlimit(2), which
changes its limits, and fcntl(2) and ioctl(2), which have a descriptor send it any signal. So this
process adds a filter of its own, before it sees anything of a project. A filter cannot be removed.
"""

from __future__ import annotations

import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
# With EPERM, like the unit's filter.
SECCOMP_RET_ERRNO_EPERM = 0x00050001

# By machine: how the kernel identifies its system calls, and the numbers of fcntl, ioctl and
# prlimit64. Others get no filter.
_GENERIC = 25, 29, 261
SYSTEM_CALLS = {
    "x86_64": (0xC000003E, (72, 16, 302)),
    "aarch64": (0xC00000B7, _GENERIC),
    "riscv64": (0xC00000F3, _GENERIC),
    "loongarch64": (0xC0000102, _GENERIC),
}

# Who gets a descriptor's signals: F_SETOWN, F_SETOWN_EX; and which signal: F_SETSIG.
REFUSED_FCNTLS = 8, 15, 10
# The same as F_SETOWN: FIOSETOWN, SIOCSPGRP.
REFUSED_IOCTLS = 0x8901, 0x8902

# struct seccomp_data: the number of the call, the architecture, and where the lower half of each
# argument is.
_NUMBER, _ARCHITECTURE = 0, 4
_FIRST, _SECOND = (16, 24) if sys.byteorder == "little" else (20, 28)
# Classic BPF: load a word, compare it, return.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06

_Instruction = struct.Struct("HBBI")


def program(machine: str) -> bytes:
    """The filter; empty for a machine that is not in the table."""
    if machine not in SYSTEM_CALLS:
        return b""
    architecture, (fcntl, ioctl, prlimit) = SYSTEM_CALLS[machine]
    allow, refuse = _instruction(_RETURN, SECCOMP_RET_ALLOW), _instruction(_RETURN, SECCOMP_RET_ERRNO_EPERM)
    parts = [
        _instruction(_LOAD, _ARCHITECTURE) + _instruction(_EQUAL, architecture, then=1) + allow,
        _instruction(_LOAD, _NUMBER),
        _rule(fcntl, _refuse_values(_SECOND, REFUSED_FCNTLS)),
        _rule(ioctl, _refuse_values(_SECOND, REFUSED_IOCTLS)),
        # 0 is this process.
        _rule(prlimit, _instruction(_LOAD, _FIRST) + _instruction(_EQUAL, 0, then=1) + refuse + allow),
        allow,
    ]
    return b"".join(parts)


def _instruction(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """`then` and `otherwise` are how many instructions a comparison skips."""
    return _Instruction.pack(code, then, otherwise, operand)


def _rule(number: int, body: bytes) -> bytes:
    """`body` decides on the system call `number`."""
    return _instruction(_EQUAL, number, otherwise=len(body) // _Instruction.size) + body


def _refuse_values(argument: int, values: Sequence[int]) -> bytes:
    tests = b"".join(_instruction(_EQUAL, value, then=len(values) - position) for position, value in enumerate(values))
    return (
        _instruction(_LOAD, argument)
        + tests
        + _instruction(_RETURN, SECCOMP_RET_ALLOW)
        + _instruction(_RETURN, SECCOMP_RET_ERRNO_EPERM)
    )


def confine() -> None:
    """Apply the filter, for good."""
    import ctypes

    instructions = program(os.uname().machine)
    if not instructions:
        return
    code = ctypes.create_string_buffer(instructions, len(instructions))
    # struct sock_fprog: the number of instructions, and where they are.
    header = ctypes.create_string_buffer(
        struct.pack("HP", len(instructions) // _Instruction.size, ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)
