"""Which secrets go where: the manifest in the container, or where there is none, the broker's allowlist.

The broker's allowlist rules: a name that the manifest has and the broker does not is denied when it is fetched. The
manifest is read with the standard library only; whether it keeps every rule the host has judged when it was loaded.
"""

from __future__ import annotations

import os
import stat

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.client.project import Client
from remo_broker.manifest import Binding, EnvBinding, Manifest, ManifestError
from remo_broker.manifest.document import parse
from remo_broker.manifest.reader import read
from remo_broker.manifest.result import build
from remo_broker.manifest.rules import MAX_BYTES, SEARCH
from remo_broker.protocol.names import is_secret_name
from remo_broker.protocol.ops import Code
from remo_broker.secret.commands import MANIFEST, ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def find_bindings(
    arguments: Arguments, client: Client, *, manifest_needed: bool = False
) -> tuple[str, dict[str, Binding]]:
    """The project's name, and a binding for each secret that is wanted, in the manifest's order."""
    project = client.ping().project
    manifest = _find_manifest(arguments.value(MANIFEST), project, client.path)
    if manifest is not None:
        bindings = manifest.bindings
    elif manifest_needed:
        raise Problem(f"no manifest of {project} is here or above; go to the project's directory, or give --manifest")
    else:
        bindings = {name: EnvBinding(name.upper()) for name in client.info().allowlist}
    if not arguments.flag(ONLY):
        return project, bindings
    wanted = names_wanted(arguments)
    for name in wanted:
        if name not in bindings:
            where = manifest.source if manifest is not None else f"the allowlist of {project}"
            raise Problem(f"{name} is not in {where}; 'remo-secret list' shows what may be fetched")
    return project, {name: binding for name, binding in bindings.items() if name in wanted}


def names_wanted(arguments: Arguments) -> list[str]:
    """The names that `--only` gives. Raises `Usage` for what is no name."""
    wanted = arguments.values(ONLY)
    for name in wanted:
        if not is_secret_name(name):
            raise Usage("--only wants names of secrets: letters, digits and underscores")
    return wanted


def projects_nearby(given: str | None) -> list[str]:
    """The projects whose manifests lie at `given`, else above the working directory, the nearest first."""
    try:
        return [manifest.project for manifest in ([_given(given)] if given is not None else _above())]
    except Problem:
        if given is not None:
            raise
        return []  # a manifest that was broken meanwhile is no reason to leave secrets lying about


def _find_manifest(given: str | None, project: str, socket_path: str) -> Manifest | None:
    """The manifest that was asked for, else the nearest one of this project above the working directory."""
    if given is not None:
        manifest = _given(given)
        if manifest.project != project:
            raise Problem(
                f"{manifest.source} is the manifest of {manifest.project}, but {socket_path} is for {project}"
            )
        return manifest
    foreign = None
    for manifest in _above():
        if manifest.project == project:
            return manifest
        foreign = foreign or manifest
    if foreign is not None:
        raise Problem(
            f"{foreign.source} is the manifest of {foreign.project}, but {socket_path} is for {project}; "
            "give the right one with --manifest, or go to another directory"
        )
    return None


def _given(path: str) -> Manifest:
    manifest = _from_directory(path) if os.path.isdir(path) else _from_file(path)
    if manifest is None:
        places = ", ".join("/".join(place) for place in SEARCH)
        raise Problem(f"{path} has none of {places}; give the manifest itself")
    return manifest


def _above() -> Iterator[Manifest]:
    """The manifests in the working directory and above it, the nearest first."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        raise Problem("the working directory has been removed; go to another, or give --manifest") from None
    while True:
        manifest = None if _anybody_may_write(directory) else _from_directory(directory)
        if manifest is not None:
            yield manifest
        if directory == "/":
            return
        directory = os.path.dirname(directory)


def _anybody_may_write(directory: str) -> bool:
    """A manifest says which files to write into the home directory: one that a stranger left in /tmp does not count."""
    try:
        return bool(os.stat(directory).st_mode & stat.S_IWOTH)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Problem(f"{directory}: {why}; go to another directory, or give --manifest") from None


def _from_directory(directory: str) -> Manifest | None:
    """The manifest of the project in a directory, found and opened as the broker's side does; None where it has none."""
    directory = os.path.abspath(directory)
    try:
        source, content = read(directory)
        return build(parse(content), source)
    except ManifestError as error:
        if error.code == Code.MANIFEST_NOT_FOUND:
            return None
        raise Problem(f"{directory}: {error.message}") from None


def _from_file(path: str) -> Manifest:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None
    if len(content) > MAX_BYTES:
        raise Problem(f"{path}: larger than the {MAX_BYTES} bytes that a manifest may have")
    try:
        return build(parse(content), os.path.abspath(path))
    except ManifestError as error:
        raise Problem(f"{path}: {error.message}") from None
