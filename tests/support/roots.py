"""Root file systems other than the host's, for running programs: built with debootstrap or busybox,
kept in .cache.

Commands run in an overlay of such a root, in their own namespaces, so the kept files do not change.
"""

from __future__ import annotations

import fcntl
import pathlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import REPOSITORY, unavailable
from tests.support.privileges import require_mounts

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = REPOSITORY / ".cache/roots"
RUN_SECONDS = 300

# argv: the root; directories to copy in as SOURCE:TARGET, separated by blanks; the script.
# `$merged` is the new root.
_ENTER = r"""
set -e
top=$(mktemp -d)
mount -t tmpfs root "$top"
mkdir "$top/upper" "$top/work" "$top/merged"
mount -t overlay -o "lowerdir=$1,upperdir=$top/upper,workdir=$top/work" root "$top/merged"
merged=$top/merged
for pair in $2; do
    mkdir -p "$merged$(dirname "${pair#*:}")"
    cp -RL "${pair%%:*}" "$merged${pair#*:}"
done
mkdir -p "$merged/proc" "$merged/dev" "$merged/run" "$merged/tmp"
mount -t proc proc "$merged/proc"
mount --rbind /dev "$merged/dev"
mount -t tmpfs run "$merged/run"
[ ! -d "$merged/etc" ] || cp -L /etc/resolv.conf "$merged/etc/resolv.conf"
status=0
env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$merged" /bin/sh -ec "$3" || status=$?
umount -lR "$top"
rmdir "$top"
exit "$status"
"""


def minbase() -> pathlib.Path:
    """A minimal Debian without Python."""
    if shutil.which("debootstrap") is None:
        unavailable("debootstrap is not installed here: ./run test installs it")
    return _kept("minbase", _make_minbase)


def with_tools() -> pathlib.Path:
    """The same with Python, git, certificates, and an ordinary user `dev`, whose uid is 1000."""
    base = minbase()
    return _kept("with-tools", lambda new: _make_with_tools(base, new))


def busybox() -> pathlib.Path:
    """A static busybox under its names, and nothing else."""
    return _kept("busybox", _make_busybox)


def _kept(name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """The root of that name; made once, by the first test process that needs it."""
    require_mounts()
    CACHE.mkdir(parents=True, exist_ok=True)
    root = CACHE / name
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            new = CACHE / f"{name}.new"
            shutil.rmtree(new, ignore_errors=True)
            make(new)
            new.rename(root)
    return root


def _make_minbase(new: pathlib.Path) -> None:
    argv = ["debootstrap", "--variant=minbase", "bookworm", str(new)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unavailable(f"debootstrap failed: {done.stdout[-500:]}")
    for file in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d"):
        _like_the_host(pathlib.Path("/", file), new / file)


def _make_with_tools(base: pathlib.Path, new: pathlib.Path) -> None:
    subprocess.run(["cp", "-a", base, new], check=True)
    shutil.copy("/etc/resolv.conf", new / "etc/resolv.conf")
    script = """
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends python3 git ca-certificates
        apt-get clean
        rm -r /var/lib/apt/lists/*
        useradd --create-home --uid 1000 dev
    """
    done = subprocess.run(["chroot", new, "sh", "-ec", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unavailable(f"apt-get failed: {done.stderr[-500:]}")


def _make_busybox(new: pathlib.Path) -> None:
    program = next((REPOSITORY / ".cache/busybox").glob("**/bin/busybox"), None)  # fetched by ./run
    if program is None:
        unavailable("there is no static busybox in .cache: ./run test fetches it")
    (new / "bin").mkdir(parents=True)
    (new / "tmp").mkdir(mode=0o1777)
    shutil.copy(program, new / "bin/busybox")
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (new / "bin" / name).symlink_to("busybox")


def _like_the_host(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the host's package sources."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy(source, target)


def make_all() -> None:
    """Make the roots before the tests, as it takes a minute, most of it a mirror's."""
    try:
        with_tools()
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        print(f"roots: {error}; the tests in containers are skipped", file=sys.stderr)


def run(root: pathlib.Path, script: str, copies: dict[pathlib.Path, str]) -> subprocess.CompletedProcess[str]:
    """Run a shell script in an overlay of `root`, with `copies` of host directories in it."""
    pairs = " ".join(f"{source}:{target}" for source, target in copies.items())
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", root, pairs, script],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


if __name__ == "__main__":
    make_all()
