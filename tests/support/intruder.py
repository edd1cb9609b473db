"""Attacks from an unprivileged process: `python intruder.py ATTEMPT ARGUMENT...` prints what
succeeded, one per line.

A standalone script with only the standard library, because other users run it in a test machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import resource
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PTRACE_SEIZE = 0x4206
PATIENCE_SECONDS = 60
_libc = ctypes.CDLL(None, use_errno=True)


def attempt(name: str, action: Callable[..., object], *arguments: object) -> None:
    """Print `name` if `action` does not raise and returns something but False."""
    try:
        if action(*arguments) is not False:
            print(name)
    except OSError:
        pass


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)


def plant(directory: str) -> None:
    """Create files of every kind in a directory."""
    path = os.path.join(directory, "planted.sock")
    for name, action in (
        ("file", lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))),
        ("link", lambda: os.symlink("/etc/shadow", path)),
        ("socket", lambda: socket.socket(socket.AF_UNIX).bind(path)),
        ("directory", lambda: os.mkdir(path)),
    ):
        attempt(f"{name} in {directory}", action)
        with contextlib.suppress(OSError):
            os.unlink(path)


def swap(path: str) -> None:
    """Replace a socket with a link."""
    attempt(f"unlinked {path}", os.unlink, path)
    attempt(f"renamed {path}", os.rename, path, f"{path}.old")
    attempt(f"opened up {path}", os.chmod, path, 0o777)


def gate(mount: str, project: str) -> None:
    """Try to get past a directory that this user may not enter."""
    target = f"{mount}/{project}/broker.sock"
    attempt("path", connect, target)
    attempt("listing", os.listdir, mount)
    attempt("hard link", os.link, target, "/tmp/linked.sock")
    attempt("rename", os.rename, f"{mount}/{project}", "/tmp/renamed")
    attempt("new mode", os.chmod, mount, 0o777)
    os.symlink(target, f"/tmp/{os.getpid()}")
    attempt("symlink", connect, f"/tmp/{os.getpid()}")
    os.unlink(f"/tmp/{os.getpid()}")
    directory = os.open(mount, os.O_PATH)
    attempt("descriptor", connect, f"/proc/self/fd/{directory}/{project}/broker.sock")
    attempt("openat", lambda: os.open(f"{project}/broker.sock", os.O_PATH, dir_fd=directory))
    attempt("chdir", os.chdir, directory)
    for process in filter(str.isdigit, os.listdir("/proc")):
        if os.stat(f"/proc/{process}").st_uid != os.getuid():
            attempt("root of another process", connect, f"/proc/{process}/root{target}")


def inherited(descriptor: str, project: str) -> None:
    """Try to get past a directory by a descriptor of it that root has opened."""
    directory = int(descriptor)
    attempt("descriptor", connect, f"/proc/self/fd/{directory}/{project}/broker.sock")
    attempt("openat", lambda: os.open(f"{project}/broker.sock", os.O_PATH, dir_fd=directory))
    attempt("hard link", lambda: os.link(f"{project}/broker.sock", "/tmp/linked.sock", src_dir_fd=directory))
    attempt("chdir", os.fchdir, directory)


def read(path: str) -> bool:
    """Whether there is anything to read: the files of an exited process are empty."""
    with open(path, "rb") as file:
        return file.read(1) != b""


def trace(seconds: str) -> None:
    """Try to read and trace each process of this user as soon as it appears: for that time, and on a busy
    machine until two have been seen."""
    mine = os.getpid()
    seen: set[str] = set()
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < float(seconds) or (len(seen) < 2 and passed < PATIENCE_SECONDS):
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if int(process) == mine or os.stat(f"/proc/{process}").st_uid != os.getuid():
                    continue
                with open(f"/proc/{process}/stat") as file:
                    command = file.read().partition("(")[2].rpartition(")")[0]
                if process not in seen:
                    seen.add(process)
                    print(f"saw {command}")
                attempt(f"maps of {command}", read, f"/proc/{process}/maps")
                attempt(f"mem of {command}", lambda process=process: os.close(os.open(f"/proc/{process}/mem", 2)))
                if _libc.ptrace(PTRACE_SEIZE, int(process), None, None) == 0:
                    print(f"traced {command}")
    sys.stdout.flush()


def neighbours(seconds: str) -> None:
    """Try to change each other process of this user, after the last step of the reader that the
    content of a project cannot have taken over."""
    sys.path += glob.glob("/usr/lib/remo-broker/lib/python3.*/site-packages")
    from remo_broker.manifest.confinement import confine

    confine()
    seen = {str(os.getpid())}
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for process in set(filter(str.isdigit, os.listdir("/proc"))) - seen:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{process}").st_uid == os.getuid():
                    seen.add(process)
                    print("saw a neighbour")
                    attempt("its memory", lambda process=process: os.close(os.open(f"/proc/{process}/mem", os.O_RDWR)))
                    attempt("a signal", os.kill, int(process), 0)
                    attempt("a descriptor for signals", lambda process=process: os.close(os.pidfd_open(int(process))))
                    attempt("its limits", resource.prlimit, int(process), resource.RLIMIT_CORE, (0, 0))
                    attempt("signals of a file", fcntl.fcntl, 0, fcntl.F_SETOWN, int(process))
        time.sleep(0.01)


def ask(path: str, line: str) -> None:
    """Send a request to a helper."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        print(f"reached {path}")
        client.sendall(line.encode() + b"\n")
        attempt(f"asked {path}", lambda: json.loads(client.recv(4096))["ok"])


def state(directory: str) -> None:
    """Try to read and replace the broker's state."""
    path = os.path.join(directory, "registrations.json")
    attempt("listed the state", os.listdir, directory)
    attempt("read the state", lambda: open(path).close())
    attempt("wrote the state", lambda: open(path, "r+").close())
    attempt("replaced the state", lambda: os.rename("/tmp/forged", path))
    attempt("linked the state", lambda: os.link(path, "/tmp/state"))


def look() -> None:
    """Look at what is visible from here, and say as whom."""
    print(f"uid {os.getuid()}")

    def is_seen(path: str) -> bool:
        return not stat.S_ISDIR(os.stat(path).st_mode) or os.listdir(path) != []

    for path in ("/home", "/run/remo-broker", "/run/remo-broker/admin.sock", "/var/lib/remo-broker", "/root"):
        attempt(f"saw {path}", is_seen, path)
    for path in ("/home/open", "/root/open"):
        attempt(f"wrote to {path}", lambda path=path: os.close(os.open(f"{path}/planted", os.O_CREAT | os.O_WRONLY)))
    attempt("socket", lambda: socket.socket(socket.AF_UNIX))


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](*sys.argv[2:])
    except OSError as error:
        print(error, file=sys.stderr)
