"""Root file systems other than the host's, for running programs: built with debootstrap or busybox,
kept in .cache.

Commands run in an overlay of such a root, in their own namespaces, so the kept files do not change.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import subprocess

from tests.support.machine import REPOSITORY, unavailable

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
    """A minimal Debian without Python; built once."""
    if os.geteuid() != 0:
        unavailable("making a system takes root")
    if shutil.which("debootstrap") is None:
        unavailable("debootstrap is not installed here: ./run test installs it")
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "minbase.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = CACHE / "minbase"
        if not root.exists():
            new = CACHE / "minbase.new"
            shutil.rmtree(new, ignore_errors=True)
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", "bookworm", new], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                unavailable(f"debootstrap failed: {done.stdout[-500:]}")
            for file in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d"):
                _like_the_host(pathlib.Path("/", file), new / file)
            new.rename(root)
    return root


def _like_the_host(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the host's package sources."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy(source, target)


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
