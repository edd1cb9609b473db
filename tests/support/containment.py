"""What the host sees of a booted machine: its control groups and its processes."""

from __future__ import annotations

import contextlib
import pathlib

# The trees in which systemd tracks processes: cgroup v2, hybrid, or v1.
HIERARCHIES = [
    f"/sys/fs/cgroup{name}"
    for name in ("", "/unified", "/systemd")
    if pathlib.Path(f"/sys/fs/cgroup{name}/cgroup.procs").exists()
]


def hierarchies(name: str) -> list[pathlib.Path]:
    """The directories of the control group `name`: cgroup v1 has a tree per controller."""
    root = pathlib.Path("/sys/fs/cgroup")
    return [path for path in (root / name, *root.glob(f"*/{name}")) if path.exists()]


def removed(directory: str) -> bool:
    with contextlib.suppress(OSError):
        pathlib.Path(directory).rmdir()
    return not pathlib.Path(directory).exists()


def is_init(pid: int) -> bool:
    """Whether this is process 1 of another PID namespace and already runs systemd."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        program = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return False
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
    return numbers[-1] == "1" and program == "systemd"
