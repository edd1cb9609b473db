"""A container's name, if the state of docker or podman is readable.

Only root's state and that of the calling user are read: a name is what its owner chose, and
other users must not name things here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from functools import cache
from typing import Any

from remo_broker.protocol.names import printable

DOCKER = "/var/lib/docker/containers"
PODMAN = "/var/lib/containers/storage/overlay-containers/containers.json"
PODMAN_HOME = ".local/share/containers/storage/overlay-containers/containers.json"
# The state of a thousand containers; anything larger is not such a state.
LARGEST_STATE = 4 * 1024 * 1024
LONGEST_NAME = 64
SHORT_ID = 12

is_container_id = re.compile(r"[0-9a-f]{64}").fullmatch


def container_name(container: str) -> str:
    """Its name, else the first twelve digits of its id.

    Anything that is not an id, such as a machine's name, is its own name. `container` is already
    printable.
    """
    if not is_container_id(container):
        return container
    name = _docker_name(container) or _podman_names().get(container)
    return printable(name, LONGEST_NAME) if name else container[:SHORT_ID]


@cache
def _docker_name(container: str) -> str | None:
    state = _read_json(f"{DOCKER}/{container}/config.v2.json")
    name = state.get("Name") if isinstance(state, dict) else None
    return name.removeprefix("/") if isinstance(name, str) else None


@cache
def _podman_names() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in (PODMAN, os.path.join(os.path.expanduser("~"), PODMAN_HOME)):
        state = _read_json(path)
        for one in state if isinstance(state, list) else []:
            names = one.get("names") if isinstance(one, dict) else None
            if isinstance(names, list) and names and isinstance(names[0], str) and isinstance(one.get("id"), str):
                found.setdefault(one["id"], names[0])
    return found


def _read_json(path: str) -> Any:
    """The JSON in a regular file; None if it does not exist or cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_STATE:
                return json.load(file)
    return None
