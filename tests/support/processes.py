"""What /proc tells of any process."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time

# The kernel's number for all that the threads of a process took: see clock_getcpuclockid(3).
_PROCESS_CLOCK = 2


def processor_seconds(pid: int) -> float:
    """A process's user and system time; what it takes just now is in it a tick later."""
    return time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)


def children(pid: int) -> list[int]:
    """A process's children, including zombies; none if the kernel does not list any. It may leave out
    one while another ends. Raises FileNotFoundError or ProcessLookupError if there is no such process."""
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended
            found += map(int, pathlib.Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def state(pid: int) -> str:
    """One letter, see proc(5): S for a process that sleeps, T for one that was stopped."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def resident_kib(pid: int) -> int:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def group_has_pending(group: int, number: int) -> bool:
    """Whether a process of the group has yet to take a signal that was sent to it."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) != group:
                continue
            status = dict(line.partition(":")[::2] for line in (process / "status").read_text().splitlines())
        except OSError:
            continue
        if (int(status["ShdPnd"], 16) | int(status["SigPnd"], 16)) & 1 << number - 1:
            return True
    return False
