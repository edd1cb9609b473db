"""What the machine is, for a comparison of figures."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import subprocess
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, kernel and versions. Nothing that names the host."""
    return {
        "cpu": _first(r"^model name\s*: (.+)$", "/proc/cpuinfo") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(_first(r"^MemTotal:\s+(\d+) kB$", "/proc/meminfo") or 0) * 1024,
        "kernel": platform.release(),
        "distribution": _first(r'^PRETTY_NAME="?([^"\n]+)', "/etc/os-release"),
        "python": platform.python_version(),
        "systemd": _version(["systemctl", "--version"]),
        "load_average": os.getloadavg()[0],
    }


def one_line(machine: dict[str, Any]) -> str:
    memory = machine["memory_bytes"] / 2**30
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB; Linux {machine['kernel']}, "
        f"{machine['distribution']}, systemd {machine['systemd']}, Python {machine['python']}; "
        f"load at the start {machine['load_average']:.1f}"
    )


def _first(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, pathlib.Path(path).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""


def _version(argv: list[str]) -> str:
    try:
        words = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return words[1] if len(words) > 1 else "none"
