"""What remo-broker-protocol(7) says about a line, written a second time and with `json`: what the
fuzzers hold the broker against.

It tells the codes that may answer a line; which of the broker's reasons it is, is for the tests
that know the cause."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

MAX_LINE = 64 * 1024
MAX_PUSH = 1024 * 1024
MAX_STATUS_LINE = 4096
MAX_DEPTH = 16
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

OK = "ok"
PROTOCOL_ERROR = "protocol_error"


@dataclass(frozen=True)
class Expected:
    """`codes` that may answer a line (`ok` for success); `fatal` when the connection ends with it,
    None for either."""

    codes: frozenset[str]
    fatal: bool | None = False


def _verdict(*codes: str, fatal: bool | None = False) -> Expected:
    return Expected(frozenset(codes), fatal)


def parse(line: bytes) -> Any:
    """Strict JSON. Raises ValueError."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) != len(items):
            raise ValueError("a key twice")
        return dict(items)

    def refuse(_: str) -> Any:
        raise ValueError("no such constant")

    value = json.loads(line.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse, parse_int=float)
    _check(value, MAX_DEPTH)
    return value


def _check(value: Any, levels: int) -> None:
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate cannot be
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError("too deep")
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(item, levels - 1)


def _request(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("op"), str) else None


def on_project(line: bytes, allowed: frozenset[str]) -> Expected:
    """A line on a project's socket, with its newline if it has one."""
    if len(line) > MAX_LINE:
        return _verdict(PROTOCOL_ERROR, fatal=True)
    request = _request(line)
    match request and request["op"]:
        case "ping" | "info" | "ready" | "bindings":
            return _verdict(OK)
        case "peek" if request and isinstance(request.get("name"), str):
            return _verdict(OK)
        case "get" if request and isinstance(request.get("name"), str):
            return _verdict(OK, "not_found") if request["name"] in allowed else _verdict("denied")
    return _verdict(PROTOCOL_ERROR)


def on_status(line: bytes) -> Expected:
    """A line on the status socket; `watch` is left out, as it is answered by a stream."""
    request = _request(line)
    good = request and request["op"] == "status" and isinstance(request.get("after", ""), str)
    if len(line) > MAX_STATUS_LINE:  # refused when more than one read of it came without a newline
        return _verdict(PROTOCOL_ERROR, *([OK] if good else []), fatal=None)
    return _verdict(OK if good else PROTOCOL_ERROR)


def on_admin(line: bytes) -> Expected:
    """A line on the admin socket. What becomes of a project depends on the file system, so several
    codes may answer."""
    if len(line) > MAX_PUSH:
        return _verdict("payload_too_large", fatal=True)
    request = _request(line)
    if request and request["op"] == "push-creds":
        return _push(request)
    if len(line) > MAX_LINE:
        # Without a whole object, it cannot be recognised as a push.
        return _verdict(PROTOCOL_ERROR, fatal=True if request else None)
    if request is None:
        return _verdict(PROTOCOL_ERROR)
    name = request.get("name")
    match request["op"]:
        case "status" if isinstance(request.get("after", ""), str):
            return _verdict(OK)
        case "clear-creds":
            return _verdict(OK)
        case "explain-unit" if isinstance(request.get("unit"), str):
            return _verdict(OK)
        case "unregister" | "show" if isinstance(name, str):
            return _verdict(OK, "project_unknown")
        case "reload" | "preview" if (
            isinstance(name, str)
            and isinstance(request.get("sha256", ""), str | None if request["op"] == "reload" else object)
            and (request["op"] == "reload" or isinstance(request.get("adopt_narrower", False), bool))
        ):
            return _verdict(OK, "project_unknown", "manifest_not_found", "manifest_invalid", "manifest_unreadable")
        case "explain" if (
            isinstance(name, str) and isinstance(request.get("secret"), str) and _is_uid(request.get("uid"))
        ):
            return _verdict(OK, "project_unknown", PROTOCOL_ERROR)
        case "register" if (
            isinstance(name, str)
            and isinstance(request.get("project_path"), str)
            and isinstance(request.get("replace", False), bool)
            and isinstance(request.get("any_name", False), bool)
        ):
            codes = (
                "project_exists",
                "manifest_not_found",
                "manifest_invalid",
                "manifest_unreadable",
                "internal_error",
            )
            # Names, paths and lists of uids that are legal JSON and illegal otherwise are the unit
            # tests'.
            return _verdict(OK, PROTOCOL_ERROR, *(codes if _PROJECT_NAME.fullmatch(name) else ()))
    return _verdict(PROTOCOL_ERROR)


def _is_uid(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value >= 0)


def _push(request: dict[str, Any]) -> Expected:
    given = [request[field] for field in ("secrets", "secrets_b64") if field in request]
    if not given or not all(isinstance(one, dict) for one in given):
        return _verdict(PROTOCOL_ERROR)
    secrets, binary = request.get("secrets", {}), request.get("secrets_b64", {})
    expires = request.get("expires", {})
    if not isinstance(expires, dict):
        return _verdict(PROTOCOL_ERROR)
    if not expires.keys() <= {*secrets, *binary}:
        return _verdict("invalid_payload")
    good = not secrets.keys() & binary.keys() and all(map(_SECRET_NAME.fullmatch, [*secrets, *binary]))
    good = good and all(isinstance(one, str) or _is_bundle(one) for one in secrets.values())
    good = good and all(isinstance(one, str) and _is_base64(one) for one in binary.values())
    # Whether the answer to a get would be too long depends on how the value was escaped: near the
    # limit either may be.
    long = any(len(json.dumps(one)) > MAX_LINE // 6 for one in [*secrets.values(), *binary.values()])
    # So it does on the clock, whether a time is past.
    long = long or bool(expires)
    good = good and all(isinstance(one, str) for one in expires.values())
    return _verdict(*([OK] if good else []), *(["invalid_payload"] if long or not good else []))


def _is_bundle(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _SECRET_NAME.fullmatch(name) and isinstance(one, str) for name, one in value.items()
    )


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return _BASE64.fullmatch(text) is not None
