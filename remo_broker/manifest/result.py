"""The result of a manifest in either form: allowlist, cache numbers, bindings and hosts.

`build` turns tables that have passed `keys` into a `Manifest`. On other tables it raises an error
that does not name the rule that they break.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from remo_broker.manifest.bindings import Binding, bindings
from remo_broker.manifest.constants import SCHEMA_VERSION
from remo_broker.manifest.fault import ManifestError, invalid
from remo_broker.protocol.names import is_project_name, is_secret_name
from remo_broker.protocol.shared_limits import DEFAULT_MAX_ENTRIES, DEFAULT_TTL_SECONDS

# Unsupported versions up to this one are named; a longer number is not worth a line.
MAX_NAMED_VERSION = 999


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest.

    `allowlist` is in the file's order; `bindings` has each of its names, with the default if none
    is given. `ttl_seconds` and `max_entries` are the effective numbers: the file's, or the maximum
    if it has none. `source` is the file's absolute path, `sha256` the hash of its bytes. `tables`
    are the bindings as the file has them.
    """

    project: str
    description: str
    allowlist: tuple[str, ...]
    bindings: dict[str, list[Binding]]
    ttl_seconds: int
    max_entries: int
    source: str
    hosts: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict, compare=False)
    sha256: str = ""


def is_allowlist_form(document: dict[str, Any]) -> bool:
    """Which form: True with `[project]` and `[allowlist]`, False with `project = "name"`."""
    return isinstance(document.get("project"), dict)


def require_version(document: dict[str, Any]) -> None:
    """Refuse a manifest of another version before this one's rules check its other keys."""
    version = document.get("schema_version")
    allowed = f"it must be the number {SCHEMA_VERSION}"
    if version is None:
        raise invalid("schema_version", "missing", allowed)
    if type(version) is not int:
        raise invalid("schema_version", "not an integer", allowed)
    if version != SCHEMA_VERSION:
        named = f"version {version}" if 0 <= version <= MAX_NAMED_VERSION else "this version"
        raise invalid("schema_version", f"{named} is not supported", allowed)


def build(
    document: dict[str, Any],
    source: str,
    *,
    max_ttl_seconds: int = DEFAULT_TTL_SECONDS,
    max_entries: int = DEFAULT_MAX_ENTRIES,
) -> Manifest:
    """The manifest in the tables of `document`. Raises `ManifestError` if they hold none."""
    require_version(document)
    try:
        if is_allowlist_form(document):
            project, description = document["project"]["name"], document["project"].get("description", "")
            allowlist = tuple(document["allowlist"]["secrets"])
            ttl_key, entries_key = "ttl_seconds", "max_entries"
        else:
            project, description = document["project"], ""
            allowlist = tuple(document.get("secrets", {}))
            ttl_key, entries_key = "default_ttl_seconds", "default_max_entries"
        tables = {
            name: table if isinstance(table, list) else [table]
            for name, table in document.get("secrets", {}).items()
            if table and name in allowlist
        }
        hosts = document.get("hosts", {})
        cache = document.get("cache", {})
        ttl_seconds, entries = cache.get(ttl_key, max_ttl_seconds), cache.get(entries_key, max_entries)
        if not is_project_name(project) or not all(is_secret_name(name) for name in allowlist):
            raise ValueError
        if not isinstance(description, str) or type(ttl_seconds) is not int or type(entries) is not int:
            raise TypeError
        return Manifest(
            project=project,
            description=description,
            allowlist=allowlist,
            bindings=bindings(allowlist, tables),
            ttl_seconds=ttl_seconds,
            max_entries=entries,
            source=source,
            hosts=dict(hosts),
            tables=tables,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _broken() from None


def _broken() -> ManifestError:
    return invalid(None, "it breaks a rule", "'remo-brokerctl check' on the host says which")
