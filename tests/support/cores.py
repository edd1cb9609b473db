"""Where the kernel sends core dumps."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import tempfile
from typing import TYPE_CHECKING

from tests.support.machine import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE_PATTERN = pathlib.Path("/proc/sys/kernel/core_pattern")
# There is one setting for all tests that run at the same time.
LOCK = pathlib.Path(tempfile.gettempdir(), "remo-broker-core-pattern.lock")


@contextlib.contextmanager
def cores_piped_to(program: pathlib.Path) -> Iterator[None]:
    """The kernel hands every core of this machine to `program`, for as long as it takes."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = CORE_PATTERN.read_text()
        try:
            CORE_PATTERN.write_text(f"|{program} %p")
        except OSError:
            unavailable("this container may not choose who gets the cores")
        try:
            yield
        finally:
            CORE_PATTERN.write_text(before)
