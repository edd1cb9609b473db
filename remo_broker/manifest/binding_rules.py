"""Rules between the keys of a manifest's bindings, which models of single keys cannot express."""

from __future__ import annotations

from typing import Any

from remo_broker.manifest.bindings import filters_in
from remo_broker.manifest.fault import ManifestError, invalid, is_showable
from remo_broker.manifest.rules import FILTERS
from remo_broker.protocol.limits import MAX_MESSAGE
from remo_broker.protocol.message import encode


def bindings_of(table: Any) -> list[dict[str, Any]]:
    """The bindings of one secret: a table, or a list of them."""
    return table if isinstance(table, list) else [table]


def binding_faults(document: dict[str, Any], listed: bool) -> list[ManifestError]:
    """Check the keys of each binding together, templates' contents, and the hosts' secrets."""
    found = []
    bound: dict[str, Any] = document.get("secrets", {})
    for secret, tables in bound.items():
        for index, table in enumerate(bindings_of(tables)):
            key = f"secrets.{secret}[{index}]" if isinstance(tables, list) else f"secrets.{secret}"
            if "env" in table and "env_var" in table:
                found.append(invalid(f"{key}.env", "given together with env_var", "keep one of the two"))
            if table.get("base") == "project" and not _stays_below(table["file_path"]):
                allowed = 'with base = "project" it must be a relative path without ..'
                found.append(invalid(f"{key}.file_path", "outside the project's directory", allowed))
            for name in filters_in(table.get("template", "")):
                if name not in FILTERS:
                    shown = f"unknown filter {name}" if is_showable(name) else "unknown filter"
                    found.append(invalid(f"{key}.template", shown, f"it must be one of {', '.join(FILTERS)}"))
    allowlist = document["allowlist"]["secrets"] if listed else list(bound)
    for host, secret in document.get("hosts", {}).items():
        if secret not in allowlist:
            allowed = "name a secret that the project may fetch"
            found.append(invalid(f'hosts."{host}"', f"{secret} is not in the allowlist", allowed))
    size = len(encode({"ok": True, "bindings": {name: bindings_of(table) for name, table in bound.items() if table}}))
    if size > MAX_MESSAGE:
        found.append(invalid("secrets", "too long", f"all bindings must fit into one reply of {MAX_MESSAGE} bytes"))
    return found


def _stays_below(path: str) -> bool:
    return not path.startswith(("/", "~")) and ".." not in path.split("/")
