"""Manifests in the container: their project, and whether they are the registered ones.

Bindings are never read from these files, which belong to the project's code: see `bindings`.
"""

from __future__ import annotations

import os
import re

from remo_broker.cli.program import Problem
from remo_broker.manifest.constants import MAX_BYTES, SEARCH
from remo_broker.manifest.fault import ManifestError
from remo_broker.manifest.reader import read
from remo_broker.protocol.codes import Code
from remo_broker.protocol.names import is_project_name

# `project = "name"`, or the first `name = "name"` below `[project]`.
_project_name = re.compile(
    r"""^[ \t]*(?:project[ \t]*=[ \t]*["']([^"'\n]*)["']"""
    r"""|\[project\][^\[]*?^[ \t]*name[ \t]*=[ \t]*["']([^"'\n]*)["'])""",
    re.MULTILINE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def digest_of(path: str) -> tuple[str, str]:
    """The path and the SHA-256 of a manifest. `path` is the file, or the project's directory."""
    import hashlib

    found = _in_directory(path) if os.path.isdir(path) else _from_file(path)
    if found is None:
        places = ", ".join("/".join(place) for place in SEARCH)
        raise Problem(f"{path} has no manifest", hint=f"it may be one of {places}; or give the file itself")
    source, content = found
    return source, hashlib.sha256(content).hexdigest()


def project_of(path: str) -> str:
    """The project of a manifest.

    `path` is the file, or the project's directory. Raises `Problem`.
    """
    found = _in_directory(path) if os.path.isdir(path) else _from_file(path)
    if found is None:
        raise Problem(f"{path} has no manifest", hint="give the manifest itself")
    source, content = found
    project = _project_in(content)
    if project is None:
        raise Problem(f"{source} does not name its project", hint="run 'remo-brokerctl check' on the host")
    return project


def projects_nearby() -> list[str]:
    """Projects of the manifests in the working directory and above, nearest first.

    Skips invalid ones.
    """
    found = [_project_in(content) for _, content in nearest()]
    return [project for project in found if project is not None]


def _project_in(content: bytes) -> str | None:
    """The project's name in a manifest of either form. Old Python versions have no TOML parser."""
    names = _project_name.findall(content.decode("utf-8", "replace").removeprefix("\ufeff"))
    return next((name for pair in names for name in pair if is_project_name(name)), None)


def nearest() -> Iterator[tuple[str, bytes]]:
    """Manifests in the working directory and above, nearest first: path, bytes.

    Skips unreadable ones.
    """
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        return
    while True:
        try:
            found = _in_directory(directory)
        except Problem:
            found = None
        if found is not None:
            yield found
        if directory == "/":
            return
        directory = os.path.dirname(directory)


def _in_directory(directory: str) -> tuple[str, bytes] | None:
    """A directory's manifest, found and opened as on the host, or None."""
    directory = os.path.abspath(directory)
    try:
        return read(directory)
    except ManifestError as error:
        if error.code == Code.MANIFEST_NOT_FOUND:
            return None
        raise Problem(f"{directory}: {error.message}") from None


def _from_file(path: str) -> tuple[str, bytes]:
    from remo_broker.cli.input_files import read_with_owner

    content, _ = read_with_owner(path, MAX_BYTES)
    return os.path.abspath(path), content
