"""Whether this host can boot a machine for tests, and what that takes: root in a container often
cannot."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import subprocess
import tempfile

from tests.support.containment import HIERARCHIES

# From this version on, systemd-nspawn refuses to run where the host's hierarchy is not cgroup v2.
NSPAWN_UNIFIED_ONLY = 258

# A command that runs another in namespaces of its own, which end with it, and it with its parent.
ISOLATED = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)

# What the start of `_BOOT` needs, and some containers forbid. In new namespaces, too.
_MAY_BOOT = r"""
set -e
[ -n "$HIERARCHIES$SYSTEMD" ] || { echo "no control groups are mounted at /sys/fs/cgroup" >&2; exit 1; }
for hierarchy in $HIERARCHIES; do
    mkdir "$hierarchy/$GROUP"
    rmdir "$hierarchy/$GROUP"
done
mount -t tmpfs machine "$TOP"
cd "$TOP"
mkdir lower upper work root
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work machine root
"""


def systemd_runs() -> bool:
    return pathlib.Path("/run/systemd/system").exists()


def _nspawn_version() -> int:
    """0 if it is not installed."""
    try:
        shown = subprocess.run(["systemd-nspawn", "--version"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return 0
    found = re.match(r"systemd (\d+)", shown)
    return int(found[1]) if found else 0


@functools.cache
def obstacle() -> str:
    """What keeps this host from booting a machine; empty if nothing does."""
    version = _nspawn_version()
    if version >= NSPAWN_UNIFIED_ONLY and not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return f"systemd-nspawn {version} needs cgroup v2, and this host's control groups are v1"
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "GROUP": f"remo-{os.getpid()}-probe",
        "HIERARCHIES": "" if systemd_runs() else " ".join(HIERARCHIES),
        "SYSTEMD": "yes" if systemd_runs() else "",
    }
    with tempfile.TemporaryDirectory(prefix="remo-machine-") as top:
        probe = subprocess.run(
            [*ISOLATED, "sh", "-c", _MAY_BOOT],
            env={**environment, "TOP": top},
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if probe.returncode == 0 else probe.stderr.strip() or f"status {probe.returncode}"
