"""`remo-brokerctl check`: a manifest's faults as a compiler tells them, without a broker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remo_broker import paths
from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem, complain
from remo_broker.cli.text import escaped
from remo_broker.config import Config, ConfigError, read_file
from remo_broker.ctl.commands import PROGRAM
from remo_broker.ctl.session import open_output
from remo_broker.manifest.fault import ManifestError
from remo_broker.manifest.rules import MAX_BYTES, SEARCH
from remo_broker.messages import Code

if TYPE_CHECKING:
    from typing import TypedDict

    class Limits(TypedDict):
        max_ttl_seconds: int
        max_entries: int


def check(arguments: Arguments) -> int:
    output = open_output(arguments)
    given = os.path.realpath(arguments.operands[0])
    source, found = directory_faults(given) if os.path.isdir(given) else file_faults(given)
    if output.json != "off":
        output.show_json(
            [{"path": source, "key": one.key, "code": str(one.code), "message": one.message} for one in found]
        )
    else:
        for one in found:
            complain(PROGRAM, f"{source}: {one.message}")
        if not found:
            output.line(f"{escaped(source)}: valid")
    return 1 if found else 0


def directory_faults(directory: str) -> tuple[str, list[ManifestError]]:
    """What is wrong with the manifest that the broker would read for the project in `directory`."""
    from remo_broker.manifest import faults

    source, found = faults(directory, **limits())
    return source or directory, found


def file_faults(path: str) -> tuple[str, list[ManifestError]]:
    """What is wrong with one file. Where it lies as a project's manifest does, the project's directory counts too."""
    from remo_broker.manifest import document, models

    folder, name = os.path.split(path)
    project, folder_name = os.path.split(folder)
    directory = models.directory_of(project) if (folder_name, name) in SEARCH else None
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None
    if len(content) > MAX_BYTES:
        return path, [ManifestError(Code.MANIFEST_UNREADABLE, f"larger than {MAX_BYTES} bytes; make it smaller")]
    try:
        tables = document.parse(content)
    except ManifestError as error:
        return path, [error]
    return path, models.faults(tables, name=directory, directory=directory, **limits())


def limits() -> Limits:
    """The broker's own cache numbers, which a manifest may not exceed: the host's, where it has a configuration."""
    try:
        config = Config(read_file(paths.CONFIG_FILE, must_exist=False))
    except ConfigError:
        config = Config()
    return {"max_ttl_seconds": config.cache_default_ttl_seconds, "max_entries": config.cache_default_max_entries}


def allowlist_on_disk(project_path: str, name: str) -> tuple[str, ...]:
    """The names in the manifest of a registered project as it is now; none where it cannot be used or read."""
    from remo_broker.manifest import load

    try:
        return load(project_path, name=name, **limits()).allowlist
    except ManifestError:
        return ()
