"""What can happen to journald. Each is a context: within it journald takes nothing, or nothing that
it can keep."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from typing import TYPE_CHECKING

from tests.support.machine import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

SERVICE = "systemd-journald.service"
_SOCKETS = ("systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket")
_DIRECTORIES = "/var/log/journal /run/log/journal"
_DISK_KIB = 64 * 1024
_CONFIG = "/etc/systemd/journald.conf.d/fault.conf"
# To the last byte; dd ends with an error by then.
_FILL = "dd if=/dev/zero of={directory}/ballast bs=4k 2>/dev/null || test -s {directory}/ballast"


def pid(machine: Machine) -> int:
    """journald's process as the host sees it. Never 0, which would be a signal to this process
    itself."""
    return poll("journald to run", lambda: _pid(machine))


def _pid(machine: Machine) -> int:
    for child in pathlib.Path(f"/proc/{machine.leader}/task/{machine.leader}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "(systemd-journal) " in pathlib.Path(f"/proc/{child}/stat").read_text():
                return int(child)
    return 0


def restart(machine: Machine) -> None:
    """However often it has been restarted already."""
    machine.systemctl("reset-failed", SERVICE)
    machine.systemctl("restart", SERVICE)


@contextlib.contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    """It hangs: SIGSTOP. Its queue fills."""
    process = pid(machine)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            os.kill(process, signal.SIGCONT)


@contextlib.contextmanager
def gone(machine: Machine) -> Iterator[None]:
    """Neither it nor its sockets are there."""
    machine.run(["systemctl", "stop", *_SOCKETS, SERVICE])
    machine.run(["rm", "/run/systemd/journal/socket"])
    try:
        yield
    finally:
        machine.systemctl("reset-failed", SERVICE)
        machine.run(["systemctl", "start", *_SOCKETS, SERVICE])


@contextlib.contextmanager
def small_disks(machine: Machine) -> Iterator[None]:
    """Its files on small disks of their own. The journal before them is out of sight meanwhile."""
    script = f"""
set -e
for directory in {_DIRECTORIES}; do
    mkdir -p $directory
    mount -t tmpfs -o size={_DISK_KIB}k,mode=2755 small $directory
done
rm -f /run/systemd/journal/flushed
"""
    # Small files, and no room kept free: it would throw away what it has to keep some.
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
    """It takes a thousand records in half a minute of a service that has no limit of its own."""
    machine.write(_CONFIG, "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=1000\n")
    restart(machine)
    try:
        yield
    finally:
        machine.run(["rm", _CONFIG])
        restart(machine)


@contextlib.contextmanager
def full_disk(machine: Machine) -> Iterator[None]:
    """There is no room below /var, but in /run, where it goes on."""
    machine.run(["sh", "-c", _FILL.format(directory="/var/log/journal")])
    try:
        yield
    finally:
        machine.run(["rm", "/var/log/journal/ballast"])


@contextlib.contextmanager
def full(machine: Machine) -> Iterator[None]:
    """There is no room anywhere."""
    for directory in _DIRECTORIES.split():
        machine.run(["sh", "-c", _FILL.format(directory=directory)])
    try:
        yield
    finally:
        machine.run(["sh", "-c", f"for directory in {_DIRECTORIES}; do rm $directory/ballast; done"])
