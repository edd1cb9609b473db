"""`remo-brokerctl check`: report a manifest's faults as a compiler would, without a broker."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from remo_broker.cli.input_files import read_with_owner
from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, report
from remo_broker.cli.real_path import real_path
from remo_broker.cli.text import escaped
from remo_broker.ctl import writable_paths
from remo_broker.ctl.commands import CREDENTIALS
from remo_broker.ctl.session import directory_problem, open_output
from remo_broker.manifest.constants import MAX_BYTES, SEARCH
from remo_broker.manifest.fault import ManifestError
from remo_broker.manifest.reader import PROJECT_PATH
from remo_broker.protocol import paths
from remo_broker.protocol.codes import Code
from remo_broker.protocol.config import Config, ConfigError, read_file

if TYPE_CHECKING:
    from typing import TypedDict

    class Limits(TypedDict):
        max_ttl_seconds: int
        max_entries: int


def check(arguments: Arguments) -> int:
    if arguments.value(CREDENTIALS) is not None:
        if arguments.operands:
            raise Usage("--credentials and PATH cannot be combined")
        from remo_broker.ctl import credentials

        return credentials.check(arguments)
    if not arguments.operands:
        raise Usage("PATH is missing: a project's directory, or a manifest")
    output = open_output(arguments)
    path, found = faults_at(arguments.operands[0])
    if output.json != "off":
        output.show_json(
            [
                {"path": path, "line": one.line, "key": one.key, "code": str(one.code), "message": one.message}
                for one in found
            ]
        )
    else:
        for one in found:
            report(f"{path}:{one.line}: {one.message}" if one.line else f"{path}: {one.message}")
        if not found:
            output.line(f"{escaped(path)}: valid{passed_over(path)}")
    project, place = split(path)
    if place is not None or os.path.isdir(path):
        writable_paths.warn(project)
    return 1 if found else 0


def faults_at(given: str) -> tuple[str, list[ManifestError]]:
    """Check the manifest at `given`, a project's directory or a file.

    Returns its path and the faults that the broker would report.
    """
    path = os.path.abspath(given)
    project, place = split(path)
    if place is not None or os.path.isdir(path):
        return project_faults(real_path(project), place)
    content, _ = read_with_owner(given if given.startswith("/") else path, MAX_BYTES)
    from remo_broker.manifest import content_faults

    return path, content_faults(content, **limits())


def project_faults(project: str, place: tuple[str, str] | None) -> tuple[str, list[ManifestError]]:
    """A project manifest's faults: the one at `place`, else the first one found."""
    from remo_broker.manifest import faults

    if place is not None and not os.path.lexists(os.path.join(project, *place)):
        raise Problem(f"{os.path.join(project, *place)}: {os.strerror(errno.ENOENT)}")
    source, found = faults(project, place=place, **limits())
    if source is None:
        # It could not be read, and the message begins with the path of the obstacle.
        [error] = found
        where, _, what = error.message.partition(": ")
        if where in {part for one in SEARCH for part in (one[0], "/".join(one))}:
            return f"{project}/{where}", [ManifestError(error.code, what)]
        return project, [ManifestError(error.code, error.message.removeprefix(f"{PROJECT_PATH}: "))]
    problem = directory_problem(project)
    return source, [*([ManifestError(Code.MANIFEST_INVALID, f"{problem}; rename it")] if problem else []), *found]


def split(path: str) -> tuple[str, tuple[str, str] | None]:
    """The project's directory and, if `path` is a place for manifests, that place."""
    folder, name = os.path.split(path)
    project, folder_name = os.path.split(folder)
    return (project, (folder_name, name)) if (folder_name, name) in SEARCH else (path, None)


def passed_over(path: str) -> str:
    """A warning if the broker would find another manifest of the same project first."""
    project, place = split(path)
    for one in SEARCH:
        if place is None or one == place:
            return ""
        if os.path.lexists(os.path.join(project, *one)):
            return f", but not read: {'/'.join(one)} comes first"
    return ""


def limits() -> Limits:
    """The limits of the cache numbers, from the host's configuration if it has one."""
    try:
        config = Config(read_file(paths.CONFIG_FILE, must_exist=False))
    except ConfigError:
        config = Config()
    return {"max_ttl_seconds": config.cache_default_ttl_seconds, "max_entries": config.cache_default_max_entries}


def allowlist_on_disk(project_path: str, name: str) -> tuple[str, ...]:
    """The names in a registered project's manifest on disk; empty if it cannot be used."""
    from remo_broker.manifest import load

    try:
        return load(project_path, name=name, **limits()).allowlist
    except ManifestError:
        return ()
