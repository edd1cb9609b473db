"""The keys of a manifest as pydantic models, each with a text that says what is allowed.

The models are typed dictionaries: a manifest consists of tables with optional keys, and
`result.build` reads the same tables with and without pydantic. A key's text is both its description
in the schema and the end of the error about it. `rules_between_keys` makes the errors, and checks
what the keys must be together.

Strict: nothing is converted; `true` is not 1, nor is `1.0`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from remo_broker.manifest.constants import (
    ENV_VAR_PATTERN,
    FILE_MODE_PATTERN,
    FILE_PATH_PATTERN,
    MAX_DESCRIPTION,
    SCHEMA_VERSION,
)
from remo_broker.protocol.names import HOST_PATTERN, PROJECT_NAME_PATTERN, SECRET_NAME_PATTERN
from remo_broker.protocol.shared_limits import (
    MAX_LEASES,
    MAX_TTL_SECONDS,
)

SECRET_NAME_RULE = "a secret's name is 1 to 128 letters, digits and underscores"
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
    "allowlist.secrets": f"a list of names ([] denies everything); {SECRET_NAME_RULE}",
    "secrets": f"tables [secrets.NAME]; {SECRET_NAME_RULE}",
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
    "hosts.*": SECRET_NAME_RULE,
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
