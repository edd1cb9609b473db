"""Detect file systems that inotify does not cover: they change without this host's kernel."""

from __future__ import annotations

import re

from remo_broker.cli.real_path import real_path
from remo_broker.protocol.mounts import mounts

# Other machines change their files, or the host of a virtual machine does.
REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "fuse.glusterfs", "lustre", "nfs", "nfs4", "smb3", "vboxsf", "virtiofs"}
)


def remote(path: str) -> str | None:
    """The type of the file system of `path`, if inotify may miss changes there; else None."""
    path = real_path(path)
    found, longest = "", -1
    for fields in mounts():
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        # If two are mounted on one place, the later one is on top.
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = fields[fields.index("-") + 1], len(point)
    return found if found in REMOTE else None
