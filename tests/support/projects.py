"""Project directories with a manifest, and how a broker parses them."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING, Any

from tests.support.broker import ask

if TYPE_CHECKING:
    from tests.support.broker import Broker, Reply


def manifest(name: str, *secrets: str, **cache: int) -> str:
    """A manifest in allowlist form."""
    text = f'schema_version = 1\n[project]\nname = "{name}"\n[allowlist]\nsecrets = {json.dumps(secrets)}\n'
    return text + "[cache]\n" + "".join(f"{key} = {value}\n" for key, value in cache.items())


def make_project(path: pathlib.Path, *secrets: str, **cache: int) -> pathlib.Path:
    """Write or replace a project's manifest in the directory `path`, named after the project."""
    place = path / ".devcontainer" / "remo-broker.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(manifest(path.name, *secrets, **cache))
    return path


def register(broker: Broker, path: pathlib.Path, name: str = "", **more: Any) -> Reply:
    return broker.ask({"op": "register", "name": name or path.name, "project_path": str(path), **more})


def reload(broker: Broker, name: str = "myrepo") -> Reply:
    return broker.ask({"op": "reload", "name": name})


def allowlist(broker: Broker, name: str = "myrepo") -> object:
    return ask(broker.project(name), {"op": "info"})["allowlist"]
