"""Validates a manifest: first each key by `keys`, then the rules between keys.

Every fault names the key, what is wrong with it, and what is allowed.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import TypeAdapter, ValidationError

from remo_broker.manifest.bindings import filters_in
from remo_broker.manifest.constants import ANOTHER_NAME, FILTERS, SCHEMA_VERSION
from remo_broker.manifest.fault import ManifestError, dotted, invalid, is_showable
from remo_broker.manifest.keys import (
    ALLOWED,
    SECRET_NAME_RULE,
    Allowlist,
    AllowlistCache,
    AllowlistForm,
    BindingCache,
    BindingForm,
    EnvTable,
    FileTable,
    ProjectTable,
)
from remo_broker.manifest.result import is_allowlist_form, require_version
from remo_broker.protocol.message import encode
from remo_broker.protocol.replies import ProjectInfo
from remo_broker.protocol.shared_limits import DEFAULT_MAX_ENTRIES, DEFAULT_TTL_SECONDS, MAX_MESSAGE

# The tables of each form by key, and where each applies: for keys that only the other form has.
_TABLES: dict[bool, dict[str, Any]] = {
    True: {"": AllowlistForm, "project": ProjectTable, "allowlist": Allowlist, "cache": AllowlistCache},
    False: {"": BindingForm, "cache": BindingCache},
}
_BINDINGS = {"env": EnvTable, "file": FileTable}
_WHERE = {
    AllowlistForm: " where project is a table",
    AllowlistCache: " where project is a table",
    BindingForm: " where project is a string",
    BindingCache: " where project is a string",
    EnvTable: ' where fetch_as is "env", as it is by default',
    FileTable: ' where fetch_as is "file"',
}

# The message for a key that is not a valid name, by its table.
_KEYS = {
    "env": ("one of the keys is not a variable's name", ALLOWED["secrets.*.env_var"]),
    "hosts": (
        "one of the keys is not a host",
        'a host in lower case, with a port if the URL has one: "example.org:8443"',
    ),
    "secrets": ("one of the keys is not a secret's name", SECRET_NAME_RULE),
}

# pydantic's error types, and the messages for them.
_PROBLEMS = {
    "missing": "missing",
    "string_type": "not a string",
    "int_type": "not an integer",
    "bool_type": "not a boolean",
    "literal_error": "unknown",
    "too_short": "empty",
    "dict_type": "not a table",
    "list_type": "not a list",
    "string_pattern_mismatch": "malformed",
    "string_too_long": "too long",
    "greater_than_equal": "out of range",
    "less_than_equal": "out of range",
}


def faults(
    document: dict[str, Any],
    *,
    name: str | None,
    directory: str | None,
    max_ttl_seconds: int = DEFAULT_TTL_SECONDS,
    max_entries: int = DEFAULT_MAX_ENTRIES,
) -> list[ManifestError]:
    """Every rule that a manifest breaks, in the order of its keys; empty for a valid one.

    `name` is the project's registered name and `directory` the last part of its path; None skips
    that check.
    """
    try:
        require_version(document)
    except ManifestError as error:
        return [error]
    listed = is_allowlist_form(document)
    adapter: TypeAdapter[Any] = TypeAdapter(AllowlistForm if listed else BindingForm)
    try:
        adapter.validate_python(document)
    except ValidationError as error:
        return _structural(error, listed)
    found = _identity(document, listed, name, directory)
    found += _names(document, listed)
    found += _bindings(document, listed)
    found += _cache(document.get("cache", {}), listed, {"ttl_seconds": max_ttl_seconds, "max_entries": max_entries})
    return found


def warm_up() -> None:
    """Have pydantic import what it would import for the first check."""
    TypeAdapter(int)


def check(
    document: dict[str, Any],
    *,
    name: str | None,
    directory: str | None,
    max_ttl_seconds: int = DEFAULT_TTL_SECONDS,
    max_entries: int = DEFAULT_MAX_ENTRIES,
) -> None:
    """Raise the first of `faults`."""
    for fault in faults(
        document, name=name, directory=directory, max_ttl_seconds=max_ttl_seconds, max_entries=max_entries
    ):
        raise fault


def _structural(error: ValidationError, listed: bool) -> list[ManifestError]:
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        place, kind = one["loc"], one["type"]
        table = _TABLES[listed].get(dotted(place[:-1]))
        if place[-1] == "[key]" and place[0] in ("secrets", "hosts") and len(place) > 2 and kind != "extra_forbidden":
            # pydantic appends this to the place if the key itself is wrong.
            place = place[:-1]
            table_name = "hosts" if place[0] == "hosts" else "secrets" if len(place) == 2 else "env"
            what, allowed = _KEYS[table_name]
            found.append(invalid(dotted(_without_tags(place)[0] if table_name == "env" else place), what, allowed))
            continue
        if place[0] == "secrets" and len(place) > 2:
            if not is_showable(str(place[1])):
                continue  # its name is the fault that is reported
            place, table = _without_tags(place)
        if kind == "extra_forbidden":
            found.append(_unknown(place, table))
        elif kind.startswith("union_tag"):
            found.append(_must_be(f"{dotted(place)}.fetch_as", "unknown", ALLOWED["secrets.*.fetch_as"]))
        elif isinstance(place[-1], int) and place[0] == "allowlist":
            found.append(invalid(dotted(place), _PROBLEMS[kind], SECRET_NAME_RULE))
        else:
            found.append(_must_be(dotted(place), _PROBLEMS.get(kind, "not allowed"), _allowed(place, kind)))
    return found


def _without_tags(place: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], Any]:
    """A place below `secrets.NAME` without pydantic's additions.

    These are the kind of a binding, and that it is a list.
    """
    head, rest = place[:2], place[2:]
    if rest[0] == "list":
        head, rest = (*head, *rest[1:2]), rest[2:]
    table = _BINDINGS[str(rest[0])] if rest else None
    return (*head, *rest[1:]), table


def _unknown(place: tuple[int | str, ...], table: Any) -> ManifestError:
    known = ", ".join(table.__annotations__)
    where = _WHERE.get(table, "")
    if is_showable(str(place[-1])):
        return invalid(dotted(place), f"unknown key{where}", f"known are {known}")
    return invalid(dotted(place) or None, f"one of the keys is unknown{where}", f"known are {known}")


def _must_be(key: str, problem: str, allowed: str) -> ManifestError:
    return invalid(key, problem, f"it must be {allowed}")


def _allowed(place: tuple[int | str, ...], kind: str) -> str:
    parts = [part for part in place if isinstance(part, str)]
    if parts[0] in ("secrets", "hosts") and len(parts) > 1:
        parts[1] = "*"
    del parts[3:]  # a variable of a binding's env
    if parts == ["project"] and kind == "string_pattern_mismatch":
        parts.append("name")  # project = "..." is already a name, only a malformed one
    return ALLOWED[".".join(parts)]


def _identity(document: dict[str, Any], listed: bool, name: str | None, directory: str | None) -> list[ManifestError]:
    key = "project.name" if listed else "project"
    project = document["project"]["name"] if listed else document["project"]
    if name is not None and directory is not None and name != directory:
        return [invalid(key, f"it is registered as {name}, but its directory has another name", "use the directory's")]
    for wanted, what in ((name, "it is registered by"), (directory, "of its directory")):
        if wanted is not None and project != wanted:
            return [
                invalid(key, f"{ANOTHER_NAME} {what}", f"it must be {wanted}" if is_showable(wanted) else "use that")
            ]
    return []


def _names(document: dict[str, Any], listed: bool) -> list[ManifestError]:
    """Duplicates, bindings without a grant, and more names than `info` can report."""
    found = []
    bound = document.get("secrets", {})
    allowlist: list[str] = document["allowlist"]["secrets"] if listed else list(bound)
    seen: set[str] = set()
    for index, secret in enumerate(allowlist):
        if secret in seen:
            found.append(invalid(f"allowlist.secrets[{index}]", f"duplicate name {secret}", "remove one of the two"))
        seen.add(secret)
    found += [
        invalid(f"secrets.{secret}", "not in the allowlist", "add it to allowlist.secrets, or remove the table")
        for secret in bound
        if secret not in seen
    ]
    project = document["project"]["name"] if listed else document["project"]
    info = ProjectInfo(project=project, allowlist=allowlist, schema_version=SCHEMA_VERSION)
    if len(encode(info.to_json())) > MAX_MESSAGE:
        key = "allowlist.secrets" if listed else "secrets"
        found.append(invalid(key, "too many names", f"all of them must fit the answer to info, {MAX_MESSAGE} bytes"))
    return found


def _cache(cache: dict[str, Any], listed: bool, maxima: dict[str, int]) -> list[ManifestError]:
    found = []
    for key, maximum in maxima.items():
        spelled = key if listed else f"default_{key}"
        if cache.get(spelled, 0) > maximum:
            allowed = f"1 to {maximum}: a project may ask for less, never for more"
            found.append(invalid(f"cache.{spelled}", f"above the broker's own {maximum}", allowed))
    return found


def _bindings_of(table: Any) -> list[dict[str, Any]]:
    """The bindings of one secret: a table, or a list of them."""
    return table if isinstance(table, list) else [table]


def _bindings(document: dict[str, Any], listed: bool) -> list[ManifestError]:
    """Check the keys of each binding together, templates' contents, and the hosts' secrets."""
    found = []
    bound: dict[str, Any] = document.get("secrets", {})
    for secret, tables in bound.items():
        for index, table in enumerate(_bindings_of(tables)):
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
    size = len(encode({"ok": True, "bindings": {name: _bindings_of(table) for name, table in bound.items() if table}}))
    if size > MAX_MESSAGE:
        found.append(invalid("secrets", "too long", f"all bindings must fit into one reply of {MAX_MESSAGE} bytes"))
    return found


def _stays_below(path: str) -> bool:
    return not path.startswith(("/", "~")) and ".." not in path.split("/")


def directory_of(project_path: str) -> str:
    """The last part of a project's path, which must be the project's name."""
    return os.path.basename(project_path.rstrip("/"))
