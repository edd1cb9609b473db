"""What a manifest comes to, whichever way it is spelled: the allowlist, the cache numbers and the bindings.

`build` turns tables into a `Manifest`. The broker's side runs it on tables that have passed `models`. `remo-secret`
runs it alone, as a container has nothing but Python: there it reads a file that the broker's side has judged before,
so a breach of a rule ends in an error that does not say which, and what nobody asks about goes unnoticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from remo_broker.manifest.fault import ManifestError, invalid
from remo_broker.manifest.rules import (
    DEFAULT_MAX_ENTRIES,
    DEFAULT_TTL_SECONDS,
    ENV_VAR_PATTERN,
    FILE_MODE_PATTERN,
    FILE_PATH_PATTERN,
    SCHEMA_VERSION,
)
from remo_broker.protocol.names import is_project_name, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Iterable

# `{{field}}` or `{{field|filter}}`.
_placeholder = re.compile(r"\{\{([^{}]*)\}\}").findall

# Versions that are named when they are not supported; a longer number is not worth a line.
MAX_NAMED_VERSION = 999


@dataclass(frozen=True, slots=True)
class EnvBinding:
    """The secret goes into environment variables: the whole of it, or a field of it, by variable.

    `explicit` tells whether the manifest names the variables; the default is the secret's name in upper case.
    """

    variables: dict[str, str | None]
    optional: bool = False
    explicit: bool = True


@dataclass(frozen=True, slots=True)
class FileBinding:
    """The secret goes into a file. `file_path` is as written, with `~` or relative; `file_mode` are permission bits."""

    file_path: str
    file_mode: int
    template: str
    optional: bool = False
    base: str = "home"
    place: str = "link"


Binding: TypeAlias = EnvBinding | FileBinding


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest. `allowlist` is in the file's order; `bindings` has each of its names, the default where none is given.

    `ttl_seconds` and `max_entries` are what holds: the file's number, or the maximum where it has none. `source` is the
    file's absolute path, `sha256` the hash of its bytes. `tables` are the bindings as the file has them.
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
    """Which of the two spellings: that with `[project]` and `[allowlist]`, else that with `project = "name"`."""
    return isinstance(document.get("project"), dict)


def require_version(document: dict[str, Any]) -> None:
    """Refuse a manifest of another version, before its other keys are measured by this one's rules."""
    version = document.get("schema_version")
    allowed = f"it must be the number {SCHEMA_VERSION}"
    if version is None:
        raise invalid("schema_version", "missing", allowed)
    if type(version) is not int:
        raise invalid("schema_version", "not a whole number", allowed)
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
    """The manifest that the tables of `document` spell. Raises `ManifestError` where they do not."""
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


def bindings(allowlist: Iterable[str], tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[Binding]]:
    """The bindings of each allowed name. Raises ValueError, KeyError or TypeError for tables that break a rule."""
    return {
        name: [_binding(name, table) for table in tables[name]] if name in tables else [_default(name)]
        for name in allowlist
    }


def _default(name: str) -> EnvBinding:
    # It may begin with a digit, as a secret's name may: execve accepts that, though no shell can express it.
    return EnvBinding({name.upper(): None}, explicit=False)


def _binding(name: str, table: dict[str, Any]) -> Binding:
    kind, optional = table.get("fetch_as", "env"), table.get("optional", False)
    if not isinstance(optional, bool):
        raise TypeError
    if kind == "file":
        base, place = table.get("base", "home"), table.get("place", "link")
        if not isinstance(table["template"], str) or base not in ("home", "project") or place not in ("link", "copy"):
            raise TypeError
        return FileBinding(
            file_path=_matching(FILE_PATH_PATTERN, table["file_path"]),
            file_mode=int(_matching(FILE_MODE_PATTERN, table["file_mode"]), 8),
            template=table["template"],
            optional=optional,
            base=base,
            place=place,
        )
    if kind != "env":
        raise ValueError
    if "env" in table:
        fields = {_matching(ENV_VAR_PATTERN, variable): str(field) for variable, field in table["env"].items()}
        return EnvBinding(dict(fields), optional)
    if "env_var" in table:
        return EnvBinding({_matching(ENV_VAR_PATTERN, table["env_var"]): None}, optional)
    return EnvBinding({name.upper(): None}, optional, explicit=False)


def filters_in(template: str) -> list[str]:
    """The filters that the placeholders of a template name: `shell` for `{{field|shell}}`."""
    return [found.partition("|")[2].strip() for found in _placeholder(template) if "|" in found]


def _matching(pattern: str, text: str) -> str:
    if re.fullmatch(pattern[1:-1], text) is None:
        raise ValueError
    return text


def _broken() -> ManifestError:
    return invalid(None, "it breaks a rule", "'remo-brokerctl check' on the host says which")
