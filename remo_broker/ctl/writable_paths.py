"""Warn about manifests that other users can replace: the next `reload` would adopt their text."""

from __future__ import annotations

import os
import shlex
import stat

from remo_broker.cli.program import report
from remo_broker.manifest.constants import SEARCH


def warn(project_path: str) -> None:
    """Warn on standard error about the project's directory and the path from it to the manifest."""
    for path in writable_by_anybody(project_path):
        report(f"remo-brokerctl: warning: any user can write to {path}, and so change what the next reload reads")
        report(f"Hint: chmod o-w {shlex.quote(path)}")


def writable_by_anybody(project_path: str) -> list[str]:
    """The project's directory, the manifest's folder and the manifest, if world-writable."""
    places = [project_path]
    for folder, name in SEARCH:
        path = os.path.join(project_path, folder, name)
        if os.path.lexists(path):
            places += [os.path.dirname(path), path]
            break
    return [place for place in places if _open_to_all(place)]


def _open_to_all(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return bool(found.st_mode & stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode)
