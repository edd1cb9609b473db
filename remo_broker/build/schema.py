"""Generate the published schemas from the code.

    python -m remo_broker.build.schema --write
    python -m remo_broker.build.schema --check      (fails on drift)

schema/remo-broker.v2.json            both sockets and the status socket, from `ops` and `replies`
schema/remo-broker-manifest.v1.json   the manifest, from `manifest.keys`

JSON Schema 2020-12, made at build time; no program imports this. The manual pages state what a
schema cannot (that two names are equal, that a line fits its length).
"""

from __future__ import annotations

import argparse
import json
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from remo_broker import MANIFEST_SCHEMA_VERSION, PROTOCOL_VERSION
from remo_broker.manifest.keys import AllowlistForm, BindingForm, ProjectName, SecretName
from remo_broker.protocol import codes, ops, replies
from remo_broker.protocol.codes import Code, Protection, Reason
from remo_broker.protocol.message import Message
from remo_broker.protocol.ops import Request
from remo_broker.protocol.shared_limits import MAX_PATH, MAX_UID, MAX_UIDS

if typing.TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = Path(__file__).resolve().parents[2] / "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Count = Annotated[int, Field(ge=0)]
Uid = Annotated[int, Field(ge=0, le=MAX_UID)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]

# The requests of each socket and its error codes.
SOCKETS: dict[str, tuple[dict[str, type[Request]], tuple[Code, ...]]] = {
    "ProjectSocket": (ops.PROJECT_REQUESTS, codes.PROJECT_CODES),
    "AdminSocket": (ops.ADMIN_REQUESTS, codes.ADMIN_CODES),
    "StatusSocket": (ops.STATUS_REQUESTS, (Code.PROTOCOL_ERROR, Code.INTERNAL_ERROR)),
}

# Fields that are narrower than their annotation.
NARROWER: dict[tuple[type[Message], str], Any] = {
    (ops.Register, "name"): ProjectName,
    (ops.Register, "project_path"): Annotated[str, Field(pattern="^/", max_length=MAX_PATH)],
    (ops.Register, "allowed_uids"): Annotated[list[Uid], Field(max_length=MAX_UIDS)],
    (ops.PushCreds, "secrets"): dict[SecretName, str | dict[SecretName, str]],
    (ops.PushCreds, "secrets_b64"): dict[SecretName, Base64],
    (ops.PushCreds, "expires"): dict[SecretName, Time],
    (ops.Explain, "uid"): Uid,
    (replies.BinaryValue, "value_b64"): Base64,
    (replies.Pong, "project"): ProjectName,
    (replies.ProjectInfo, "project"): ProjectName,
    (replies.ProjectInfo, "allowlist"): list[SecretName],
    (replies.ProjectInfo, "hosts"): dict[str, SecretName],
    (replies.BoundSecrets, "bindings"): dict[SecretName, list[dict[str, Any]]],
    (replies.Reloaded, "allowlist"): list[SecretName],
    (replies.Pushed, "loaded_at"): Time,
    (replies.BrokerStatus, "secrets_loaded_at"): Time | None,
    (replies.BrokerStatus, "memory_protection"): Protection,
    (replies.BrokerEvent, "memory_protection"): Protection,
    (replies.ProjectStatus, "name"): ProjectName,
    (replies.ProjectEvent, "name"): ProjectName,
    (replies.ProjectDetail, "name"): ProjectName,
    (replies.ProjectDetail, "allowlist"): list[SecretName],
    (replies.ProjectDetail, "allowed_uids"): list[Uid],
    (replies.RemovedEvent, "name"): ProjectName,
    (replies.Failure, "reason"): Reason,
    (replies.Value, "expires_at"): Time,
    (replies.BinaryValue, "expires_at"): Time,
    (replies.StoreState, "event"): Literal[replies.PUSHED, replies.CLEARED],
    (replies.ProjectState, "event"): Literal[replies.PUSHED, replies.CLEARED, replies.RELOADED],
    (replies.ProjectState, "project"): ProjectName,
    (replies.ProjectState, "allowlist"): list[SecretName],
}

# Fields that the contract of version 2 promises, where this broker sends more: clients must work
# without the rest.
PROMISED: dict[type[Message], frozenset[str]] = {
    replies.Value: frozenset({"ok", "value", "ttl_seconds"}),
    replies.BinaryValue: frozenset({"ok", "value_b64", "ttl_seconds"}),
    replies.Pushed: frozenset({"ok", "loaded_at", "secret_count"}),
    replies.BrokerStatus: frozenset(
        {
            *("ok", "broker_version", "protocol_version", "uptime_seconds"),
            *("secrets_loaded_at", "secret_count", "projects"),
        }
    ),
    replies.ProjectStatus: frozenset({"name", "socket_path", "allowlist_size", "cache_entries"}),
}


class SchemaGenerator(GenerateJsonSchema):
    """pydantic's, without titles that repeat a key; key patterns admit no other key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        made = super().dict_schema(schema)
        if "patternProperties" in made:
            made["additionalProperties"] = False
        return made


class Messages:
    """The messages of the protocol as types for pydantic: each is made once, by class and name."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def of(self, cls: type[Message], name: str = "", **narrower: Any) -> Any:
        """The type of `cls`, called `name`, with its fields narrowed by `narrower`."""
        name = name or cls.__name__
        if name not in self._made:
            fields: dict[str, Any] = {"op": Literal[cls.OP]} if issubclass(cls, Request) else {}
            hints = typing.get_type_hints(cls, localns=vars(typing))
            for field in cls.FIELDS:
                kind = narrower.get(field) or NARROWER.get((cls, field)) or self._kind(hints[field])
                fields[field] = _presence(cls, field, kind)
            table: Any = TypedDict(name, fields)  # type: ignore[misc]
            table.__doc__ = cls.__doc__
            # An empty object is its own message; messages with more fields must not match it.
            extra: Literal["allow", "forbid"] = "forbid" if cls is replies.KeepAlive else "allow"
            self._made[name] = with_config(ConfigDict(strict=True, extra=extra))(table)
        return self._made[name]

    def _kind(self, hint: Any) -> Any:
        """The type of a field. Messages in it are made too; the protocol has no negative number."""
        if hint is int:
            return Count
        if isinstance(hint, type) and issubclass(hint, Message):
            return self.of(hint)
        if typing.get_origin(hint) is list:
            return list[self._kind(typing.get_args(hint)[0])]  # type: ignore[misc]
        if type(None) in typing.get_args(hint):
            # In a message, None means that the field is missing; the JSON leaves it out too.
            (rest,) = (part for part in typing.get_args(hint) if part is not type(None))
            return self._kind(rest)
        return hint


def _presence(message: type[Message], field: str, kind: Any) -> Any:
    """`kind` as a field that is fixed, optional, or required."""
    default = getattr(message, field, None)
    if field in {"ok", "event"} and default is not None:
        return Literal[default]
    if message.optional(field) and default is not None:
        kind = Annotated[kind, Field(json_schema_extra={"default": default})]
    if message.optional(field) or field not in PROMISED.get(message, message.FIELDS):
        return NotRequired[kind]
    return kind


def protocol() -> dict[str, Any]:
    """The schema of every message on every socket."""
    made = Messages()
    kinds: dict[str, Any] = {}
    lists: dict[str, list[str]] = {}
    for socket, (requests, errors) in SOCKETS.items():
        failure = made.of(replies.Failure, f"{socket}Failure", code=Literal[errors])
        kinds[f"{socket}Request"] = Annotated[
            _any_of(made.of(request) for request in requests.values()), Field(discriminator="op")
        ]
        lists[f"{socket}Reply"] = []
        for request in requests.values():
            name = f"{request.__name__}Reply"
            if name in kinds:  # two sockets answer `status`, each with its own codes
                name = socket + name
            kinds[name] = _any_of([*(made.of(answer) for answer in request.REPLIES), failure])
            lists[f"{socket}Reply"].append(name)
    schemas, defined = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(kind)) for name, kind in kinds.items()], schema_generator=SchemaGenerator
    )
    definitions = defined["$defs"] | {name: schema for (name, _), schema in schemas.items()}
    for socket, names in lists.items():
        definitions[socket] = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}
        for name in names:
            # Exactly one of them: a reply has a value or a value in base64.
            definitions[name] = {"oneOf": definitions[name]["anyOf"]}
    return {
        "$schema": DIALECT,
        "$id": f"urn:remo-broker:protocol:v{PROTOCOL_VERSION}",
        "title": f"remo-broker wire protocol, version {PROTOCOL_VERSION}",
        "description": "One line on a socket of remo-broker. A socket's requests and replies are in $defs, by its name; "
        "what one op is answered is there by the op's. Unknown fields are ignored by both sides.",
        "anyOf": [{"$ref": f"#/$defs/{socket}{what}"} for socket in SOCKETS for what in ("Request", "Reply")],
        "$defs": dict(sorted(definitions.items())),
    }


def manifest() -> dict[str, Any]:
    """The schema of a manifest's tables, as a TOML parser returns them."""
    made = TypeAdapter(AllowlistForm | BindingForm).json_schema(schema_generator=SchemaGenerator)
    return {
        "$schema": DIALECT,
        "$id": f"urn:remo-broker:manifest:v{MANIFEST_SCHEMA_VERSION}",
        "title": f"remo-broker project manifest, version {MANIFEST_SCHEMA_VERSION}",
        "description": "The tables of a project's manifest, in either spelling. Beyond what this says: the project's "
        "name is that of its directory, bindings are for names in the allowlist, and the cache's numbers are not above "
        "the broker's own.",
        **made,
    }


def documents() -> dict[str, str]:
    """The text of each schema, by file name."""
    made = {
        f"remo-broker.v{PROTOCOL_VERSION}.json": protocol(),
        f"remo-broker-manifest.v{MANIFEST_SCHEMA_VERSION}.json": manifest(),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def _any_of(kinds: Iterable[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007 - of a list


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m remo_broker.build.schema", description="Makes the published schemas."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write them")
    what.add_argument("--check", action="store_true", help="tell which files differ from what would be written")
    arguments = parser.parse_args()
    stale = 0
    for name, text in documents().items():
        file = DIRECTORY / name
        if arguments.write:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale = 1
            print(
                f"schema/{name} is not what the code says; run 'python -m remo_broker.build.schema --write'",
                file=sys.stderr,
            )
    return stale


if __name__ == "__main__":
    sys.exit(main())
