"""Find the projects that a set of secrets does not satisfy."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from remo_broker.client.admin import AdminClient


def projects_lacking(client: AdminClient, names: Collection[str]) -> list[tuple[str, list[str]]]:
    """The registered projects whose allowlist has names outside `names`, each with those names."""
    held = set(names)
    found = []
    for project in client.status().projects:
        missing = [name for name in client.show(project.name).allowlist if name not in held]
        if missing:
            found.append((project.name, missing))
    return found
