"""Secrets as people keep them, JSON or dotenv, made into what a push takes.

No error repeats a line of the file: places and names only.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from remo_broker.cli.program import Problem
from remo_broker.messages import MAX_PUSH
from remo_broker.names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = "names are letters, digits and _, at most 128"
_assignment = re.compile(r"\s*(?:export\s+)?([^\s=#]+)\s*=[ \t]*").match
# What stands in a value is never tried twice, however long it is.
_double = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL).match
_single = re.compile(r"'([^']*+)'").match
_bare = re.compile(r"[^\n]*").match
_after = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)").match
_comment = re.compile(r"[ \t]+#.*").search
_escape = re.compile(r"\\(.)", re.DOTALL).sub
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}


class Secrets:
    """What is to be pushed. A name stands once."""

    def __init__(self) -> None:
        self.texts: dict[str, str | dict[str, str]] = {}
        self.binaries: dict[str, bytes] = {}

    def names(self) -> list[str]:
        return [*self.texts, *self.binaries]

    def add(self, where: str, name: str, value: str | dict[str, str] | bytes) -> None:
        """`where` is the file, and the line where that is known, for the error."""
        if not is_secret_name(name):
            raise Problem(f"{where}: a name that no secret can have; {_NAMES}")
        if name in self.texts or name in self.binaries:
            raise Problem(f"{where}: {name} stands twice; keep one")
        if isinstance(value, bytes):
            self.binaries[name] = value
        else:
            self.texts[name] = value

    def __repr__(self) -> str:
        return f"<Secrets: {len(self.names())}>"


def read(path: str) -> bytes:
    """A file's bytes, as many as a push could take."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_PUSH + 1)
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None
    if len(content) > MAX_PUSH:
        raise Problem(f"{path}: larger than the {MAX_PUSH} bytes that a push may have")
    return content


def parse(content: bytes, where: str, directory: str, kind: str | None, into: Secrets) -> None:
    """Add what a file holds. `kind` is `json`, `dotenv` or None to guess; `directory` is where `@PATH` begins."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(
            f"{where}: not UTF-8 at byte {error.start}; to push its bytes as one secret, give NAME=@{where}"
        ) from None
    if kind == "json" or (kind is None and text.lstrip().startswith("{")):
        _parse_json(text, where, into)
    else:
        _parse_dotenv(text, where, directory, into)


def _parse_json(text: str, where: str, into: Secrets) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise Problem(f"{where}: a key stands twice in one object; keep one")
        return fields

    try:
        document = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise Problem(f"{where}:{error.lineno}:{error.colno}: not JSON from here on; correct it") from None
    except RecursionError:
        raise Problem(f"{where}: nested too deep; values are strings or objects of strings") from None
    if not isinstance(document, dict):
        raise Problem(f'{where}: not a JSON object; write {{"NAME": "value"}}')
    # The protocol's own form; a secret that is called `secrets` cannot be meant, as a bundle of bundles is none.
    if {"secrets", "secrets_b64"} & document.keys() and all(isinstance(part, dict) for part in document.values()):
        unknown = document.keys() - {"secrets", "secrets_b64"}
        if unknown:
            raise Problem(f"{where}: beside secrets and secrets_b64 nothing may stand; move it into one of them")
        for name, value in document.get("secrets_b64", {}).items():
            into.add(where, name, _decoded(where, name, value))
        document = document.get("secrets", {})
    for name, value in document.items():
        into.add(where, name, value)
        if isinstance(value, str):
            continue
        if not isinstance(value, dict) or not all(isinstance(field, str) for field in value.values()):
            raise Problem(f"{where}: {name} is neither a string nor an object of strings; write numbers in quotes")
        if not all(map(is_secret_name, value)):
            raise Problem(f"{where}: {name} has a field with a name that none can have; {_NAMES}")


def _decoded(where: str, name: str, value: Any) -> bytes:
    import binascii

    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, TypeError, ValueError):
        raise Problem(f"{where}: {name} is not base64; encode it with 'base64 -w0'") from None


def _parse_dotenv(text: str, where: str, directory: str, into: Secrets) -> None:
    for line, name, value, literal in _assignments(text.replace("\r\n", "\n"), where):
        place = f"{where}:{line}"
        if literal or not value.startswith("@"):
            into.add(place, name, value)
        elif value == "@":
            raise Problem(f"{place}: {name}=@ names no file; write {name}='@' for the sign itself")
        else:
            into.add(place, name, read(os.path.join(directory, value[1:])))


def _assignments(text: str, where: str) -> Iterator[tuple[int, str, str, bool]]:
    """Line number, name, value, and whether the value was quoted, so that `@` in it means nothing."""
    position = 0
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        rest = _bare(text, position)
        assert rest is not None
        if not rest.group().strip() or rest.group().lstrip().startswith("#"):
            position = rest.end() + 1
            continue
        found = _assignment(text, position)
        if found is None or "\n" in found.group():
            raise Problem(f"{where}:{line}: not NAME=value; put quotes around values of several lines")
        name, position = found.group(1), found.end()
        sign = text[position : position + 1]
        if sign not in ("'", '"'):
            rest = _bare(text, position)
            assert rest is not None
            yield line, name, _without_comment(rest.group()), False
            position = rest.end() + 1
            continue
        quoted = (_double if sign == '"' else _single)(text, position)
        after = _after(text, quoted.end()) if quoted else None
        if quoted is None or after is None:
            raise Problem(
                f"{where}:{line}: the quotes around {name if is_secret_name(name) else 'a value'} do not close"
            )
        value = quoted.group(1)
        yield line, name, value if sign == "'" else _escape(_unescaped, value), True
        position = after.end()


def _without_comment(value: str) -> str:
    found = _comment(" " + value)
    return (value if found is None else value[: max(0, found.start() - 1)]).strip()


def _unescaped(found: re.Match[str]) -> str:
    letter = found.group(1)
    return _ESCAPES.get(letter, letter if letter in '"\\$`' else found.group())
