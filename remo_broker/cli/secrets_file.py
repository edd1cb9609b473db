"""Secrets as people and tools write them, JSON or dotenv, made into what a push takes.

`remo-brokerctl push` and the sidecar read by these rules. An error says where: the source, and the line or the path of
the key. It never repeats a value.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from remo_broker.cli.dotenv import assignments
from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.protocol.names import is_secret_name
from remo_broker.protocol.ops import ADMIN_REQUESTS, MAX_PUSH, PushCreds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

NAMES = "names are letters, digits and _, at most 128"
WRITE = 'write {"NAME": "value"}'

# The protocol's own form, and what may stand beside it: `metadata` is what `fnox export` adds.
_SECRETS, _BINARIES, _EXPIRES, _METADATA = "secrets", "secrets_b64", "expires", "metadata"
_FORM = (_SECRETS, _BINARIES, _EXPIRES, _METADATA)
# Where the entries of a list have their names: `op item get` and `bw get item` print lists of fields.
_LABELS = ("label", "name", "id")
_VALUE = "value"

# Keys that an error repeats. Anything else may be a value that stands in the wrong place.
_is_plain_key = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch


class Secrets:
    """What is to be pushed. Each name occurs once."""

    def __init__(self) -> None:
        self.texts: dict[str, str | dict[str, str]] = {}
        self.binaries: dict[str, bytes] = {}
        self.expires: dict[str, str] = {}
        self._sources: dict[str, str] = {}

    def names(self) -> list[str]:
        return [*self.texts, *self.binaries]

    def source(self, name: str) -> str:
        """Where `name` came from."""
        return self._sources[name]

    def add(self, where: str, name: str, value: str | dict[str, str] | bytes, *, source: str = "") -> None:
        """`where` is the place for an error, `source` the file or command as a whole, `where` by default."""
        if not is_secret_name(name):
            raise Problem(f"{where}: a name that no secret can have", hint=NAMES)
        if name in self._sources:
            raise Problem(f"{where}: {name} is also given by {self._sources[name]}", hint="keep one of the two")
        self._sources[name] = source or where
        if isinstance(value, bytes):
            self.binaries[name] = value
        else:
            self.texts[name] = value

    def __repr__(self) -> str:
        return f"<Secrets: {len(self.names())}>"


class Picking:
    """Which part of a source is meant. `select` is the path of the object, `rename` its names to the secrets' names,
    `only` the secrets' names that are taken."""

    __slots__ = ("only", "rename", "select")

    def __init__(
        self,
        select: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        self.select = select
        self.rename = rename or {}
        self.only = only

    def name(self, name: str) -> str | None:
        """The secret's name; None if it is not taken."""
        name = self.rename.get(name, name)
        return name if self.only is None or name in self.only else None

    def check(self, where: str, names: Collection[str]) -> None:
        """Raise `Problem` if something that was asked for is not among the secrets' `names`."""
        for option, wanted in (("only", self.only or ()), ("rename", self.rename.values())):
            missing = [name for name in wanted if name not in names]
            if option == "rename" and self.only is not None:
                missing = [name for name in missing if name in self.only]
            if missing:
                raise Problem(f"{where}: {listed(missing)}: named by {option}, but not there", hint="correct the name")


EVERYTHING = Picking()


def read(file: str | int, where: str, hint: str | None = None) -> bytes:
    """A file's bytes, at most as many as a push takes. `where` names it in an error."""
    try:
        with open(file, "rb", closefd=isinstance(file, str)) as opened:
            content = opened.read(MAX_PUSH + 1)
    except OSError as error:
        raise Problem(f"{where}: {os.strerror(error.errno or 0)}", hint=hint) from None
    if len(content) > MAX_PUSH:
        raise Problem(f"{where}: larger than the {MAX_PUSH} bytes that a push may have", hint="leave something out")
    return content


def parse(
    content: bytes,
    where: str,
    directory: str | None,
    kind: str | None,
    into: Secrets,
    picking: Picking = EVERYTHING,
) -> None:
    """Add what a file or a command has given. `kind` is `json`, `dotenv` or None to guess.

    `directory` is what `@PATH` in dotenv is relative to; None if it has no meaning, as in what a command prints.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(
            f"{where}: not UTF-8 at byte {error.start}", hint="to push its bytes as one secret, give NAME=@PATH"
        ) from None
    if kind == "json" or (kind is None and text.lstrip()[:1] in ("{", "[")):
        _add_json(text, where, into, picking)
    else:
        if picking.select:
            raise Problem(f"{where}: not JSON, of which select could take a part", hint="remove select, or print JSON")
        _add_dotenv(text, where, directory, into, picking)


# --- JSON --------------------------------------------------------------------------------------------------------------


def _add_json(text: str, where: str, into: Secrets, picking: Picking) -> None:
    document = _selected(_loaded(text, where), where, picking.select)
    path = ".".join(picking.select)
    if isinstance(document, list):
        document = _of_list(document, where, path)
    if not isinstance(document, dict):
        raise Problem(f"{_place(where, path)}: not a JSON object", hint=WRITE)
    binaries: dict[str, Any] = {}
    expires: dict[str, Any] = {}
    if not picking.select:
        document = _without_op(document, where)
        # A bundle that is itself called `secrets` has to be put into `secrets`.
        if any(isinstance(document.get(field), dict) for field in (_SECRETS, _BINARIES)):
            document, binaries, expires = _of_form(document, where)
            path = _SECRETS
    for position, (key, value) in enumerate(document.items(), 1):
        name = picking.name(key)
        if name is not None:
            place = _named(where, path, key, position, name)
            into.add(_place(where, path), name, _checked(value, place), source=where)
    for position, (key, value) in enumerate(binaries.items(), 1):
        name = picking.name(key)
        if name is not None:
            place = _named(where, _BINARIES, key, position, name)
            into.add(_place(where, _BINARIES), name, _decoded(value, place), source=where)
    for position, (key, value) in enumerate(expires.items(), 1):
        name = picking.name(key)
        if name is not None:
            if not isinstance(value, str):
                place = _place(where, _EXPIRES, _shown(key, position))
                raise Problem(f"{place}: not a string", hint='write a time such as "2026-05-31T03:30:00Z"')
            into.expires[name] = value


def _loaded(text: str, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            keys = [key for key, _ in pairs]
            position, twice = next((at, key) for at, key in enumerate(keys, 1) if key in keys[: at - 1])
            raise Problem(f"{where}: {_shown(twice, position)}: twice in one object", hint="keep one of the two")
        return fields

    def not_json(_word: str) -> Any:
        raise Problem(f"{where}: NaN or Infinity, which JSON does not have", hint="write it in quotes")

    try:
        # Numbers are kept as they are written: 1.10 is a version, and a long one is a number that no float holds.
        return json.loads(text, object_pairs_hook=once, parse_int=str, parse_float=str, parse_constant=not_json)
    except json.JSONDecodeError as error:
        raise Problem(f"{where}:{error.lineno}:{error.colno}: not JSON from here on", hint="correct it") from None
    except RecursionError:
        raise Problem(f"{where}: nested too deep", hint="values are strings or objects of strings") from None


def _selected(document: Any, where: str, select: Sequence[str]) -> Any:
    for depth, key in enumerate(select):
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isascii() and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            shown = [one for one in document if _is_plain_key(one)] if isinstance(document, dict) else []
            hint = f"correct select; the keys there are {listed(shown)}" if shown else "correct select"
            raise Problem(f"{_place(where, *select[: depth + 1])}: not there", hint=hint)
    return document


def _of_list(entries: list[Any], where: str, path: str) -> dict[str, Any]:
    """The object that a list of `{"label": NAME, "value": VALUE}` stands for. Entries without a value are left out."""
    found: dict[str, Any] = {}
    for position, entry in enumerate(entries):
        place = _place(where, path, str(position))
        label = None
        if isinstance(entry, dict):
            label = next((entry[key] for key in _LABELS if isinstance(entry.get(key), str)), None)
        if label is None:
            raise Problem(f"{place}: not an object with a name and a value", hint="select the object with the secrets")
        if entry.get(_VALUE) is None:
            continue
        if label in found:
            raise Problem(f"{place}: {_shown(label, position + 1)}: twice in one list", hint="keep one of the two")
        found[label] = entry[_VALUE]
    return found


def _of_form(document: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """`secrets`, `secrets_b64` and `expires` of the protocol's own form."""
    for position, (field, value) in enumerate(document.items(), 1):
        if field not in _FORM:
            raise Problem(
                f"{where}: {_shown(field, position)}: not allowed beside {_SECRETS} and {_BINARIES}",
                hint=f"move it into {_SECRETS}",
            )
        if not isinstance(value, dict):
            raise Problem(f"{where}: {field}: not an object, which it is beside the others", hint=WRITE)
    return document.get(_SECRETS, {}), document.get(_BINARIES, {}), document.get(_EXPIRES, {})


def _without_op(document: dict[str, Any], where: str) -> dict[str, Any]:
    """The secrets of a whole `push-creds` request, which may be given as it is. Other requests are refused."""
    op = document.get("op")
    if not isinstance(op, str):
        return document
    if op == PushCreds.OP and not document.keys().isdisjoint((_SECRETS, _BINARIES)):
        return {field: value for field, value in document.items() if field != "op"}
    if op in ADMIN_REQUESTS:
        raise Problem(f"{where}: a request with the op {op}, not secrets", hint=WRITE)
    return document


def _checked(value: Any, place: str) -> str | dict[str, str]:
    """What is pushed for a JSON value: a string, a number or boolean as it is written, or an object of these."""
    if not isinstance(value, dict):
        return _text(value, place)
    fields = {}
    for position, (field, one) in enumerate(value.items(), 1):
        inner = f"{place}.{_shown(field, position)}"
        if not is_secret_name(field):
            raise Problem(f"{inner}: a name that no field can have", hint=NAMES)
        if isinstance(one, dict):
            raise Problem(f"{inner}: an object inside an object", hint="select the object that holds the secrets")
        fields[field] = _text(one, inner)
    return fields


def _text(value: Any, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            hint = "push such a value as bytes, in secrets_b64"
            problem = Problem(f"{place}: half of a surrogate pair, which is not text", hint=hint)
        else:
            return value
    elif value is None:
        problem = Problem(f"{place}: null", hint="give it a value, or leave it out")
    else:
        problem = Problem(f"{place}: a list", hint="a secret is a string, or an object of strings; write it as one")
    raise problem


def _decoded(value: Any, place: str) -> bytes:
    import binascii

    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, TypeError, ValueError):
        pass
    raise Problem(f"{place}: not base64", hint="encode it with 'base64 -w0'")


def _place(where: str, *path: str) -> str:
    """`SOURCE: path.of.the.key`."""
    keys = ".".join(key for key in path if key)
    return f"{where}: {keys}" if keys else where


def _named(where: str, path: str, key: str, position: int, name: str) -> str:
    """The place of a secret. Raises `Problem` if no secret can have its `name`."""
    place = _place(where, path, _shown(key, position))
    if not is_secret_name(name):
        raise Problem(f"{place}: a name that no secret can have", hint=f"{NAMES}; give it another with rename")
    return place


def _shown(key: str, position: int) -> str:
    return key if _is_plain_key(key) else f"(key {position})"


# --- dotenv ------------------------------------------------------------------------------------------------------------


def _add_dotenv(text: str, where: str, directory: str | None, into: Secrets, picking: Picking) -> None:
    for line, key, value, literal in assignments(text, where):
        place = f"{where}:{line}"
        name = picking.name(key)
        if name is None:
            continue
        if literal or directory is None or not value.startswith("@"):
            into.add(place, name, value, source=where)
        elif value == "@":
            raise Problem(f"{place}: {name}=@ names no file", hint=f"write {name}='@' for the sign itself")
        else:
            # The path is not repeated: it may be a value that begins with the sign.
            called = f"{place}: the file for {name if is_secret_name(name) else 'a value'}"
            hint = "write a value that begins with @ in single quotes"
            into.add(place, name, read(os.path.join(directory, value[1:]), called, hint), source=where)
