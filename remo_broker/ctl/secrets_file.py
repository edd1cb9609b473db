"""Secrets as people keep them, JSON or dotenv, made into what a push takes.

No error repeats a line of the file: places and names only.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from remo_broker.cli.program import Problem
from remo_broker.protocol.names import is_secret_name
from remo_broker.protocol.ops import ADMIN_REQUESTS, MAX_PUSH, PushCreds

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = "names are letters, digits and _, at most 128"
_PROTOCOL_FORM = frozenset({"secrets", "secrets_b64"})
# Lines end with LF or CRLF; what stands in quotes stays as it is.
_assignment = re.compile(r"\s*(?:export\s+)?([^\s=#]+)\s*=[ \t]*").match
# What stands in a value is never tried twice, however long it is.
_double = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL).match
_single = re.compile(r"'([^']*+)'").match
_bare = re.compile(r"[^\n]*").match
_after = re.compile(r"[ \t]*(?:#[^\n]*|\r)?(?:\n|\Z)").match
_comment = re.compile(r"[ \t]+#.*").search
_escape = re.compile(r"\\(\r\n|.)", re.DOTALL).sub
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\n": "", "\r\n": ""}


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
            raise Problem(f"{where}: a name that no secret can have; {NAMES}")
        if name in self.texts or name in self.binaries:
            raise Problem(f"{where}: {name} stands twice; keep one")
        if isinstance(value, bytes):
            self.binaries[name] = value
        else:
            self.texts[name] = value

    def __repr__(self) -> str:
        return f"<Secrets: {len(self.names())}>"


def read(file: str | int, where: str, advice: str = "") -> bytes:
    """A file's bytes, as many as a push could take. `where` is what an error calls it, `advice` what that ends with."""
    try:
        with open(file, "rb", closefd=isinstance(file, str)) as opened:
            content = opened.read(MAX_PUSH + 1)
    except OSError as error:
        raise Problem(f"{where}: {os.strerror(error.errno or 0)}{advice}") from None
    if len(content) > MAX_PUSH:
        raise Problem(f"{where}: larger than the {MAX_PUSH} bytes that a push may have")
    return content


def parse(content: bytes, where: str, directory: str, kind: str | None, into: Secrets) -> None:
    """Add what a file holds. `kind` is `json`, `dotenv` or None to guess; `directory` is where `@PATH` begins."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(
            f"{where}: not UTF-8 at byte {error.start}; to push its bytes as one secret, give NAME=@PATH"
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
        # A number is none of the values that are allowed, and may have more digits than Python takes.
        document = json.loads(text, object_pairs_hook=once, parse_int=float)
    except json.JSONDecodeError as error:
        raise Problem(f"{where}:{error.lineno}:{error.colno}: not JSON from here on; correct it") from None
    except RecursionError:
        raise Problem(f"{where}: nested too deep; values are strings or objects of strings") from None
    if not isinstance(document, dict):
        raise Problem(f'{where}: not a JSON object; write {{"NAME": "value"}}')
    document = _without_op(document, where)
    # The protocol's own form. Whoever has a bundle that is called `secrets` puts it into `secrets`.
    if any(isinstance(document.get(field), dict) for field in _PROTOCOL_FORM):
        for field in document:
            if field not in _PROTOCOL_FORM:
                raise Problem(f"{where}: beside secrets and secrets_b64 nothing may stand; move it into one of them")
            if not isinstance(document[field], dict):
                raise Problem(f'{where}: {field} is not an object beside the other; write {{"NAME": "value"}}')
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
            raise Problem(f"{where}: {name} has a field with a name that none can have; {NAMES}")


def _without_op(document: dict[str, Any], where: str) -> dict[str, Any]:
    """What a request to push would push: a sidecar's own line may be given as it is. Other requests are refused."""
    op = document.get("op")
    if not isinstance(op, str):
        return document
    if op == PushCreds.OP and not _PROTOCOL_FORM.isdisjoint(document):
        return {field: value for field, value in document.items() if field != "op"}
    if op in ADMIN_REQUESTS:
        raise Problem(f'{where}: a request with the op {op}, not secrets; write {{"NAME": "value"}}')
    return document


def _decoded(where: str, name: str, value: Any) -> bytes:
    import binascii

    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, TypeError, ValueError):
        raise Problem(f"{where}: {name} is not base64; encode it with 'base64 -w0'") from None


def _parse_dotenv(text: str, where: str, directory: str, into: Secrets) -> None:
    for line, name, value, literal in _assignments(text, where):
        place = f"{where}:{line}"
        if literal or not value.startswith("@"):
            into.add(place, name, value)
        elif value == "@":
            raise Problem(f"{place}: {name}=@ names no file; write {name}='@' for the sign itself")
        else:
            # The path is not repeated: it may be a value that begins with the sign.
            called = f"{place}: the file for {name if is_secret_name(name) else 'a value'}"
            advice = "; write a value that begins with @ in single quotes"
            into.add(place, name, read(os.path.join(directory, value[1:]), called, advice))


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
    return (value if found is None else value[: max(0, found.start() - 1)]).strip(" \t\r")


def _unescaped(found: re.Match[str]) -> str:
    letter = found.group(1)
    return _ESCAPES.get(letter, letter if letter in '"\\$`' else found.group())
