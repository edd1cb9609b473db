"""Which kinds of memory protection this host allows, tested with the system calls themselves.

A broker under test has the same kernel, seccomp filter and limits as the test. So these functions
tell which protection it must report, and which memory tests can run here.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from tests.support.machine import unavailable
from tests.support.without_memfd_secret import SYS_MEMFD_SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

# A little more than the broker locks at once.
_LOCKED_BYTES = 2 << 20

_libc = ctypes.CDLL(None, use_errno=True)

# A wrapper command that makes the kernel appear to lack memfd_secret(2).
WITHOUT_MEMFD_SECRET = (sys.executable, str(pathlib.Path(__file__).with_name("without_memfd_secret.py")))


@functools.cache
def has_memfd_secret() -> bool:
    """False on kernels before 5.14, if not enabled at boot (`secretmem.enable=1` before 6.5), and
    under a seccomp filter.
    """
    descriptor: int = _libc.syscall(SYS_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


@functools.cache
def has_mlock() -> bool:
    """False under a seccomp filter, as in a container without CAP_IPC_LOCK, or if the limit is too
    low.
    """
    with mmap.mmap(-1, _LOCKED_BYTES) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        locked: int = _libc.mlock(ctypes.byref(start), ctypes.c_size_t(_LOCKED_BYTES))
        del start
        return locked == 0


def protection() -> str:
    """The `memory_protection` that a broker must report on this host."""
    if has_memfd_secret():
        return "memfd_secret"
    return "mlock" if has_mlock() else "none"


def require_memfd_secret() -> None:
    if not has_memfd_secret():
        unavailable("memfd_secret(2) is missing here, switched off or filtered")


def require_mlock() -> None:
    if not has_mlock():
        unavailable("locking memory is filtered or limited here")


def of_this_host(record: Mapping[str, str]) -> bool:
    """Whether this is the line that a broker logs at startup on a host without memfd_secret(2)."""
    said = f"secrets are kept in memory with protection '{protection()}'"
    return not has_memfd_secret() and said in record.get("MESSAGE", "")
