"""Whether a project's socket is where its clients look for it, and somebody listens there.

The broker listens on what it has bound, whatever became of the file since: somebody may have removed it, and container
engines make a directory where the source of a mount is missing.
"""

from __future__ import annotations

import os
import stat

_SOCKETS = "/proc/net/unix"
# Of the flags in its fourth column: __SO_ACCEPTCON, a listening socket.
_LISTENS = 0x10000


def problem(socket_path: str) -> str | None:
    """What is wrong with a project's socket, and how to mend it; None if its clients are served."""
    try:
        mode = os.lstat(socket_path).st_mode
    except FileNotFoundError:
        return f"{socket_path} was removed; 'remo-brokerctl reload PROJECT' makes it again"
    except OSError as error:
        return f"{socket_path}: {os.strerror(error.errno or 0)}"
    if stat.S_ISDIR(mode):
        return f"{socket_path} is a directory, as container engines make for a missing mount; remove it with rmdir"
    if not stat.S_ISSOCK(mode):
        return f"{socket_path} is not a socket; remove it"
    return (
        None
        if _listens(socket_path)
        else f"nothing listens on {socket_path}; run 'systemctl restart remo-broker.service'"
    )


def field(socket_path: str) -> dict[str, object]:
    """The same for JSON: `served`, and why not."""
    why = problem(socket_path)
    return {"served": why is None} | ({} if why is None else {"unserved_reason": why})


def _listens(path: str) -> bool:
    """Whether some socket of this network namespace listens under the path. True if that is unknown."""
    try:
        with open(_SOCKETS, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(" ", 7) for line in file]
    except OSError:
        return True
    named = [row for row in rows if len(row) == 8 and row[7].lstrip() == path]
    return not rows or any(int(row[3], 16) & _LISTENS for row in named)
