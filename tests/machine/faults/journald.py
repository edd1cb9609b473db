"""Faults of journald, as contexts: within each, journald accepts nothing, or nothing that it can
keep."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from typing import TYPE_CHECKING

from tests.support.machine import poll
from tests.support.processes import children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

SERVICE = "systemd-journald.service"
_SOCKETS = ("systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket")
_DIRECTORIES = "/var/log/journal /run/log/journal"
_DISK_KIB = 64 * 1024
_CONFIG = "/etc/systemd/journald.conf.d/fault.conf"
# Until the last byte; dd then ends with an error.
_FILL = "dd if=/dev/zero of={directory}/ballast bs=4k 2>/dev/null || test -s {directory}/ballast"


def pid(machine: Machine) -> int:
    """journald's process as the host sees it. Never 0, which would be a signal to this process
    itself."""
    return poll("journald to run", lambda: _pid(machine))


def _pid(machine: Machine) -> int:
    for child in children(machine.leader):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "(systemd-journal) " in pathlib.Path(f"/proc/{child}/stat").read_text():
                return child
    return 0


def restart(machine: Machine) -> None:
    """Restart it, even if systemd's start limit was reached."""
    machine.systemctl("reset-failed", SERVICE)
    machine.systemctl("restart", SERVICE)


def kill(machine: Machine) -> None:
    """Kill it, and wait until another one is ready."""
    before = pid(machine)
    os.kill(before, signal.SIGKILL)
    machine.systemctl("reset-failed", SERVICE, check=False)
    # Until systemd has noticed, the service is still active.
    poll("another journald", lambda: pid(machine) != before)
    machine.wait_state(SERVICE, "active")


@contextlib.contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    """It is stopped by SIGSTOP, so its queue fills."""
    process = pid(machine)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            os.kill(process, signal.SIGCONT)


@contextlib.contextmanager
def gone(machine: Machine) -> Iterator[None]:
    """Neither it nor its sockets exist."""
    machine.run(["systemctl", "stop", *_SOCKETS, SERVICE])
    machine.run(["rm", "/run/systemd/journal/socket"])
    try:
        yield
    finally:
        machine.systemctl("reset-failed", SERVICE)
        machine.run(["systemctl", "start", *_SOCKETS, SERVICE])


@contextlib.contextmanager
def small_disks(machine: Machine) -> Iterator[None]:
    """Its files are on small disks; the earlier journal is hidden meanwhile."""
    script = f"""
set -e
for directory in {_DIRECTORIES}; do
    mkdir -p $directory
    mount -t tmpfs -o size={_DISK_KIB}k,mode=2755 small $directory
done
rm -f /run/systemd/journal/flushed
"""
    # Small files and no reserve: otherwise it would delete entries to keep space free.
    limits = "".join(f"{kind}MaxUse=50M\n{kind}MaxFileSize=1M\n{kind}KeepFree=4K\n" for kind in ("System", "Runtime"))
    machine.write(_CONFIG, f"[Journal]\n{limits}")
    machine.run(["sh", "-c", script])
    restart(machine)
    machine.run(["journalctl", "--flush"])
    try:
        yield
    finally:
        machine.run(["sh", "-c", f"rm {_CONFIG}; umount -l {_DIRECTORIES}"])
        restart(machine)


@contextlib.contextmanager
def strict(machine: Machine) -> Iterator[None]:
    """By default it accepts a thousand records in half a minute from a service."""
    machine.write(_CONFIG, "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=1000\n")
    restart(machine)
    try:
        yield
    finally:
        machine.run(["rm", _CONFIG])
        restart(machine)


@contextlib.contextmanager
def full_disk(machine: Machine) -> Iterator[None]:
    """/var is full, so it continues in /run."""
    machine.run(["sh", "-c", _FILL.format(directory="/var/log/journal")])
    try:
        yield
    finally:
        machine.run(["rm", "/var/log/journal/ballast"])


@contextlib.contextmanager
def full(machine: Machine) -> Iterator[None]:
    """There is no space left anywhere."""
    for directory in _DIRECTORIES.split():
        machine.run(["sh", "-c", _FILL.format(directory=directory)])
    try:
        yield
    finally:
        machine.run(["sh", "-c", f"for directory in {_DIRECTORIES}; do rm $directory/ballast; done"])
