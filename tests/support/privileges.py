"""What this host lets tests do: root in a container often may neither mount, nor make devices,
nor trace other processes."""

from __future__ import annotations

import functools
import os
import pathlib
import stat
import subprocess
import tempfile

from tests.support.machine import unavailable

_CAP_SYS_PTRACE = 19

# argv: a directory.
_MOUNT = 'mount -t tmpfs probe "$0" && mount --bind "$0" "$0"'


def require_root(why: str) -> None:
    """Skip the test unless this is root, which `why` takes; fail in continuous integration."""
    if os.geteuid() != 0:
        unavailable(f"{why} takes root")


def require_mounts() -> None:
    require_root("mounting")
    if obstacle := _obstacle_to_mounts():
        unavailable(f"nothing can be mounted here: {obstacle}")


def require_devices() -> None:
    require_root("making a device")
    if obstacle := _obstacle_to_devices():
        unavailable(f"no device can be made here: {obstacle}")


def require_tracing() -> None:
    """Skip the test unless it may look into processes that are not dumpable, as a broker is."""
    require_root("looking into a broker")
    if not _may_trace():
        unavailable("looking into a broker takes CAP_SYS_PTRACE, which root lacks here")


@functools.cache
def _may_trace() -> bool:
    status = pathlib.Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    return bool(int(effective, 16) >> _CAP_SYS_PTRACE & 1)


@functools.cache
def _obstacle_to_mounts() -> str:
    """What keeps this host from mounting in a mount namespace of its own; empty if nothing does."""
    with tempfile.TemporaryDirectory() as directory:
        probe = ["unshare", "--mount", "sh", "-c", _MOUNT, directory]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"


@functools.cache
def _obstacle_to_devices() -> str:
    with tempfile.TemporaryDirectory() as directory:
        null = pathlib.Path(directory, "null")
        try:
            os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            null.write_bytes(b"a file system may ignore devices")
        except OSError as error:
            return str(error)
    return ""
