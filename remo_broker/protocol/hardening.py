"""How a process that handles secrets hardens itself: allocator settings, and no dumps."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PR_SET_DUMPABLE = 4

# glibc overwrites freed heap memory with this byte (glibc.malloc.perturb), and keeps nothing freed
# in a cache that skips it. One arena: the thread that writes the registrations needs no arena of
# its own. Symbols are bound at start: lazy binding makes the dynamic linker save the vector
# registers on the stack, and with them parts of what was copied last. It costs the start a quarter
# of a millisecond.
MEMORY_ENVIRONMENT = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
    "LD_BIND_NOW": "1",
}

# Set in the environment of a process that has re-executed itself, so that it does so only once.
REEXECUTED = "REMO_BROKER_REEXECUTED"


def environment_missing(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that `environment` lacks for freed memory to be overwritten; empty if none."""
    return {name: value for name, value in MEMORY_ENVIRONMENT.items() if environment.get(name) != value}


def execute_again() -> None:
    """Re-execute with these settings, unless they are in force: they take effect only when a
    process starts.

    A launcher's -I ignores PYTHONMALLOC with all other PYTHON* variables; in that case the others
    are removed instead.
    """
    isolated = sys.flags.ignore_environment
    if os.environ.pop(REEXECUTED, None) or not (isolated or environment_missing(os.environ)):
        return
    arguments = sys.orig_argv[1:]
    environment = dict(os.environ)
    if isolated:
        arguments[0] = "-SsP"
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    environment |= MEMORY_ENVIRONMENT | {REEXECUTED: "1"}
    os.execve(sys.executable, [sys.executable, *arguments], environment)


def forbid_dumps() -> None:
    """Forbid core dumps, and ptrace and `/proc/PID/mem` for the same user."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
