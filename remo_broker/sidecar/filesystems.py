"""Where inotify does not reach: file systems that change without the kernel of this host."""

from __future__ import annotations

import os

# Their files are changed by other machines, or by the host of a virtual machine.
REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "fuse.glusterfs", "lustre", "nfs", "nfs4", "smb3", "vboxsf", "virtiofs"}
)
MOUNTS = "/proc/self/mountinfo"


def remote(path: str) -> str | None:
    """The type of the file system that `path` is on, if changes on it may go unseen; None if inotify reaches it."""
    path = os.path.realpath(path)
    found, longest = "", -1
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        # Of two on one place, the later lies on top.
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = fields[fields.index("-") + 1], len(point)
    return found if found in REMOTE else None
