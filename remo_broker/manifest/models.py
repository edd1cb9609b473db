"""The rules of remo-broker-manifest(5) as pydantic models, with a message for each breach.

The models are typed dictionaries: a manifest consists of tables with optional keys, and
`result.build` reads the same tables with and without pydantic. Each key's text says what is
allowed; it is both the description in the schema and the end of the error.

Strict: nothing is converted; `true` is not 1, nor is `1.0`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from remo_broker.manifest.binding_rules import binding_faults
from remo_broker.manifest.fault import ManifestError, dotted, invalid, is_showable
from remo_broker.manifest.result import is_allowlist_form, require_version
from remo_broker.manifest.rules import (
    ANOTHER_NAME,
    ENV_VAR_PATTERN,
    FILE_MODE_PATTERN,
    FILE_PATH_PATTERN,
    MAX_DESCRIPTION,
    SCHEMA_VERSION,
)
from remo_broker.protocol.limits import (
    DEFAULT_MAX_ENTRIES,
    DEFAULT_TTL_SECONDS,
    MAX_LEASES,
    MAX_MESSAGE,
    MAX_TTL_SECONDS,
)
from remo_broker.protocol.message import encode
from remo_broker.protocol.names import HOST_PATTERN, PROJECT_NAME_PATTERN, SECRET_NAME_PATTERN
from remo_broker.protocol.replies import ProjectInfo

_SECRET_NAME = "a secret's name is 1 to 128 letters, digits and underscores"
_TTL = f"an integer number of seconds from 1 to {MAX_TTL_SECONDS}, not above the broker's own"
_ENTRIES = f"an integer from 1 to {MAX_LEASES}, not above the broker's own"
_FILE_NEEDS = "a file binding needs file_path, file_mode and template"

# What is allowed, by key; `*` stands for a secret's name.
ALLOWED = {
    "schema_version": f"the number {SCHEMA_VERSION}",
    "project": 'a table [project] with the name, or project = "name"',
    "project.name": "1 to 64 of a-z, 0-9, - and _, the first a letter or a digit",
    "project.description": f"a string of at most {MAX_DESCRIPTION} characters",
    "allowlist": "a table [allowlist] with the list secrets",
    "allowlist.secrets": f"a list of names ([] denies everything); {_SECRET_NAME}",
    "secrets": f"tables [secrets.NAME]; {_SECRET_NAME}",
    "secrets.*": "a table with fetch_as and what it takes, an empty one, or a list of such tables",
    "secrets.*.fetch_as": '"env" or "file"',
    "secrets.*.optional": "true or false",
    "secrets.*.env_var": "letters, digits and underscores, the first no digit",
    "secrets.*.env": 'a table such as { AWS_ACCESS_KEY_ID = "aws_access_key_id" }: a variable and a field of the bundle',
    "secrets.*.file_path": f"a path without control characters; {_FILE_NEEDS}",
    "secrets.*.file_mode": f'four octal digits in quotes, such as "0600"; {_FILE_NEEDS}',
    "secrets.*.template": f"a string, {{{{name}}}} standing for a field of the secret; {_FILE_NEEDS}",
    "secrets.*.base": '"home" or "project", the directory that a relative file_path begins in',
    "secrets.*.place": '"link" or "copy": a link to a file in memory, or the file itself on a tmpfs',
    "hosts": 'a table [hosts] such as "registry.example.org" = "REGISTRY": a server and the secret for it',
    "hosts.*": _SECRET_NAME,
    "cache": "a table [cache]",
    "cache.ttl_seconds": _TTL,
    "cache.max_entries": _ENTRIES,
    "cache.default_ttl_seconds": _TTL,
    "cache.default_max_entries": _ENTRIES,
}


def _key(key: str, **limits: Any) -> Any:
    return Field(description=ALLOWED[key], **limits)


_table = with_config(ConfigDict(strict=True, extra="forbid"))

SecretName: TypeAlias = Annotated[str, Field(pattern=SECRET_NAME_PATTERN)]
Variable: TypeAlias = Annotated[str, Field(pattern=ENV_VAR_PATTERN)]
ProjectName: TypeAlias = Annotated[str, _key("project.name", pattern=PROJECT_NAME_PATTERN)]


@_table
class ProjectTable(TypedDict):
    """The project's name, and what it is for."""

    name: ProjectName
    description: NotRequired[Annotated[str, _key("project.description", max_length=MAX_DESCRIPTION)]]


@_table
class Allowlist(TypedDict):
    """What the project may fetch."""

    secrets: Annotated[list[SecretName], _key("allowlist.secrets", json_schema_extra={"uniqueItems": True})]


@_table
class EnvTable(TypedDict):
    """A secret that goes into an environment variable: its name in upper case, or `env_var`.

    With `env`, fields of a bundle go into one variable each.
    """

    fetch_as: NotRequired[Annotated[Literal["env"], _key("secrets.*.fetch_as")]]
    optional: NotRequired[Annotated[bool, _key("secrets.*.optional")]]
    env_var: NotRequired[Annotated[str, _key("secrets.*.env_var", pattern=ENV_VAR_PATTERN)]]
    env: NotRequired[Annotated[dict[Variable, SecretName], _key("secrets.*.env", min_length=1)]]


@_table
class FileTable(TypedDict):
    """A secret that goes into a file."""

    fetch_as: Annotated[Literal["file"], _key("secrets.*.fetch_as")]
    optional: NotRequired[Annotated[bool, _key("secrets.*.optional")]]
    file_path: Annotated[str, _key("secrets.*.file_path", pattern=FILE_PATH_PATTERN)]
    file_mode: Annotated[str, _key("secrets.*.file_mode", pattern=FILE_MODE_PATTERN)]
    template: Annotated[str, _key("secrets.*.template")]
    base: NotRequired[Annotated[Literal["home", "project"], _key("secrets.*.base")]]
    place: NotRequired[Annotated[Literal["link", "copy"], _key("secrets.*.place")]]


def _kind(table: Any) -> str | None:
    if isinstance(table, list):
        return "list"
    kind = table.get("fetch_as", "env") if isinstance(table, dict) else "env"
    return kind if kind in ("env", "file") else None


_OneBinding: TypeAlias = Annotated[
    Annotated[EnvTable, Tag("env")] | Annotated[FileTable, Tag("file")], Discriminator(_kind)
]
Secrets: TypeAlias = Annotated[
    dict[
        SecretName,
        Annotated[
            Annotated[EnvTable, Tag("env")]
            | Annotated[FileTable, Tag("file")]
            | Annotated[list[_OneBinding], Tag("list"), Field(min_length=1)],
            Discriminator(_kind),
        ],
    ],
    _key("secrets"),
]
Hosts: TypeAlias = Annotated[
    dict[Annotated[str, Field(pattern=HOST_PATTERN)], Annotated[str, _key("hosts.*", pattern=SECRET_NAME_PATTERN)]],
    _key("hosts"),
]


@_table
class AllowlistCache(TypedDict):
    """Leases, tighter than the broker's own."""

    ttl_seconds: NotRequired[Annotated[int, _key("cache.ttl_seconds", ge=1, le=MAX_TTL_SECONDS)]]
    max_entries: NotRequired[Annotated[int, _key("cache.max_entries", ge=1, le=MAX_LEASES)]]


@_table
class BindingCache(TypedDict):
    """Leases, tighter than the broker's own."""

    default_ttl_seconds: NotRequired[Annotated[int, _key("cache.default_ttl_seconds", ge=1, le=MAX_TTL_SECONDS)]]
    default_max_entries: NotRequired[Annotated[int, _key("cache.default_max_entries", ge=1, le=MAX_LEASES)]]


@_table
class AllowlistForm(TypedDict):
    """The allowlist is a list; `[secrets.NAME]` binds names that are in it."""

    schema_version: Annotated[Literal[1], _key("schema_version")]
    project: ProjectTable
    allowlist: Allowlist
    secrets: NotRequired[Secrets]
    hosts: NotRequired[Hosts]
    cache: NotRequired[AllowlistCache]


@_table
class BindingForm(TypedDict):
    """The keys of `secrets`, in the file's order, are the allowlist."""

    schema_version: Annotated[Literal[1], _key("schema_version")]
    project: ProjectName
    secrets: NotRequired[Secrets]
    hosts: NotRequired[Hosts]
    cache: NotRequired[BindingCache]


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
    "secrets": ("one of the keys is not a secret's name", _SECRET_NAME),
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
    found += binding_faults(document, listed)
    found += _cache(document.get("cache", {}), listed, {"ttl_seconds": max_ttl_seconds, "max_entries": max_entries})
    return found


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
            found.append(invalid(dotted(place), _PROBLEMS[kind], _SECRET_NAME))
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


def directory_of(project_path: str) -> str:
    """The last part of a project's path, which must be the project's name."""
    return os.path.basename(project_path.rstrip("/"))
