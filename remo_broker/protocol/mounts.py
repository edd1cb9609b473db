"""The mounts that this process sees: proc_pid_mountinfo(5)."""

from __future__ import annotations

PATH = "/proc/self/mountinfo"


def mounts(path: str | None = None) -> list[list[str]]:
    """The fields of each mount, in which blanks, tabs, line feeds and backslashes are escaped; none if
    the list cannot be read.

    Users who can mount choose names, and the kernel escapes nothing else in them. So nothing else ends
    a field or a line.
    """
    try:
        with open(path or PATH, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return [line.rstrip("\n").split(" ") for line in file]
    except OSError:
        return []
