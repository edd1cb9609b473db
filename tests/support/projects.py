"""Project directories with a manifest."""

from __future__ import annotations

import json
import pathlib


def manifest(name: str, *secrets: str, **cache: int) -> str:
    """A manifest in the allowlist form."""
    text = f'schema_version = 1\n[project]\nname = "{name}"\n[allowlist]\nsecrets = {json.dumps(secrets)}\n'
    return text + "[cache]\n" + "".join(f"{key} = {value}\n" for key, value in cache.items())


def make_project(path: pathlib.Path, *secrets: str, **cache: int) -> pathlib.Path:
    """Write, or write anew, the manifest of the project in the directory `path`, which is named after it."""
    place = path / ".devcontainer" / "remo-broker.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(manifest(path.name, *secrets, **cache))
    return path
