"""Project directories with a manifest, and how a broker parses them."""

from __future__ import annotations

import json
import pathlib
import time
from typing import TYPE_CHECKING, Any

from tests.support.broker import WAIT_SECONDS, ask

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
    return _read_in_time(broker, {"op": "register", "name": name or path.name, "project_path": str(path), **more})


def reload(broker: Broker, name: str = "myrepo") -> Reply:
    return _read_in_time(broker, {"op": "reload", "name": name})


def _read_in_time(broker: Broker, request: dict[str, Any]) -> Reply:
    """Ask again while a busy machine's manifest reader misses its deadline."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        reply = broker.ask(request)
        if not is_late(reply) or time.monotonic() > deadline:
            return reply


def is_late(reply: Reply) -> bool:
    """Whether the manifest reader missed its deadline, as it may on a busy machine."""
    return reply.get("code") == "manifest_unreadable" and "took longer than" in reply["message"]


def allowlist(broker: Broker, name: str = "myrepo") -> object:
    return ask(broker.project(name), {"op": "info"})["allowlist"]
