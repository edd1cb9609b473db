"""Whether a project's socket is where its clients look for it.

The broker listens on the socket it bound, whatever happened to the file since: it may have been
removed, or a container engine may have made a directory in place of a missing mount source. Whether
a process listens cannot be seen from here: the broker and its helper have their own network
namespaces, which /proc/net/unix does not show.
"""

from __future__ import annotations

import os
import stat


def problem(socket_path: str) -> str | None:
    """What is wrong with a project's socket and how to fix it; None if its clients are served."""
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
    return None


def field(socket_path: str) -> dict[str, object]:
    """The same for JSON: `served`, and the reason if it is false."""
    why = problem(socket_path)
    return {"served": why is None} | ({} if why is None else {"unserved_reason": why})
