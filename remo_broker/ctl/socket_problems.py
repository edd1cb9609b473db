"""Whether a project's sockets are where its clients look for them.

The broker listens on the sockets that it bound, even if their files have changed: one may have
been removed, or a container engine may have made a directory in place of a missing mount source.
The broker says which one clients cannot connect to; what is in its place is looked up here.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.protocol.replies import ProjectFacts


def problem(project: ProjectFacts) -> str | None:
    """What is wrong with a project's sockets and how to fix it; None if its clients are served."""
    path = project.unserved or project.socket_path
    again = f"'remo-brokerctl reload {project.name}' makes it again"
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return f"{path} was removed; {again}"
    except ValueError:  # no path can have a zero byte or half of a surrogate pair
        return f"{path} is not a path; {again}"
    except OSError as error:
        # The directory of the sockets for containers is closed to most users.
        if project.unserved is None:
            return f"{path}: {os.strerror(error.errno or 0)}"
        return f"clients cannot connect to {path}; {again}"
    if stat.S_ISDIR(mode):
        return (
            f"{path} is a directory, as container engines make for a missing mount; remove it with rmdir, then {again}"
        )
    if not stat.S_ISSOCK(mode):
        return f"{path} is not a socket; remove it, then {again}"
    if project.unserved is not None:
        return f"{path} is not the broker's socket; remove it, then {again}"
    return None


def field(project: ProjectFacts) -> dict[str, object]:
    """The same for JSON: `served`, and the reason if it is false."""
    why = problem(project)
    return {"served": why is None} | ({} if why is None else {"unserved_reason": why})
