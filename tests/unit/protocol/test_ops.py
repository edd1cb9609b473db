"""The base of all messages, and the tables of ops and replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remo_broker.broker.refusals import Refused
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.message import FieldError, Message, encode, from_fields
from remo_broker.protocol.ops import (
    ADMIN_REQUESTS,
    PROJECT_REQUESTS,
    STATUS_REQUESTS,
    Explain,
    Get,
    PushCreds,
    Register,
    Status,
)
from remo_broker.protocol.replies import EVENTS, BinaryValue, BrokerEvent, Failure, ProjectInfo, SyncedEvent, Value


def test_fields_come_in_the_order_of_the_class() -> None:
    value = Value(generation=7, value="x", ttl_seconds=542)
    assert list(value.to_json().items()) == [("ok", True), ("value", "x"), ("ttl_seconds", 542), ("generation", 7)]


def test_a_field_that_defaults_to_none_is_left_out() -> None:
    failure = Failure(code=Code.DENIED, message="m")
    assert failure.to_json() == {"ok": False, "code": "denied", "message": "m"}
    whole = Failure(code="c", message="m", reason="r", retry_after_seconds=1).to_json()
    assert list(whole) == ["ok", "code", "message", "reason", "retry_after_seconds"]


def test_messages_inside_messages() -> None:
    info = ProjectInfo(project="p", allowlist=["A"], schema_version=1)
    assert json.loads(encode(info.to_json())) == {"ok": True, "project": "p", "allowlist": ["A"], "schema_version": 1}


def test_a_missing_or_unknown_field_raises_type_error() -> None:
    with pytest.raises(TypeError, match="needs name"):
        Get()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no colour"):
        Get(name="A", colour="red")  # type: ignore[call-arg]


def test_optional_fields() -> None:
    assert not Register.optional("name")
    assert Register.optional("allowed_uids")
    assert Explain.optional("uid")
    assert Status().after is None


@pytest.mark.parametrize(
    "message",
    [
        Value(value="hidden", ttl_seconds=1, generation=1),
        BinaryValue(value_b64="hidden", ttl_seconds=1, generation=1),
        PushCreds(secrets={"A": "hidden"}),
        PushCreds(secrets_b64={"A": "hidden"}),
    ],
)
def test_no_secret_in_a_repr(message: Value | BinaryValue | PushCreds) -> None:
    assert "hidden" not in repr(message)
    assert "<secret>" in repr(message)


def test_equality() -> None:
    assert Get(name="A") == Get(name="A")
    assert Get(name="A") != Get(name="B")
    assert Get(name="A") != Register(name="A", project_path="/")


def test_each_socket_has_the_ops_of_the_protocol() -> None:
    assert list(PROJECT_REQUESTS) == ["get", "ping", "info", "ready", "peek", "bindings", "watch"]
    assert set(ADMIN_REQUESTS) >= {"register", "unregister", "reload", "status", "push-creds", "clear-creds"}
    assert set(STATUS_REQUESTS) == {"status", "watch"}
    assert set(EVENTS) == {"broker", "project", "removed", "synced", "stopping"}
    assert EVENTS["synced"] is SyncedEvent
    assert "secrets_loaded_at" not in BrokerEvent.FIELDS


def test_a_refusal_as_a_line() -> None:
    line = Refused(Code.RATE_LIMITED, Reason.TOO_MANY_REQUESTS, "wait", retry_after_seconds=2).line()
    assert line == (
        b'{"ok":false,"code":"rate_limited","message":"wait","reason":"too_many_requests","retry_after_seconds":2}\n'
    )
    assert Refused(Code.PROJECT_UNKNOWN, None, "é").line() == (
        b'{"ok":false,"code":"project_unknown","message":"\\u00e9"}\n'
    )


# --- from JSON


class Part(Message):
    size: int


class Whole(Message):
    FIRST = ("name",)
    part: Part
    parts: list[Part] = []  # noqa: RUF012 - never changed
    name: str
    limits: dict[str, int] | None = None
    flag: bool = False


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a", "part": {"size": 1}},
        {"name": "a", "part": {"size": 1, "other": 2}, "parts": [{"size": 2}], "limits": {"b": 3}, "flag": True},
        {"name": "a", "part": {"size": 1}, "limits": None, "unknown": []},
    ],
)
def test_a_message_survives_a_round_trip_through_json(fields: dict[str, Any]) -> None:
    message = from_fields(Whole, fields)
    assert isinstance(message.part, Part)
    assert all(isinstance(part, Part) for part in message.parts)
    assert from_fields(Whole, message.to_json()) == message
    assert next(iter(message.to_json())) == "name"


@pytest.mark.parametrize(
    ("change", "field", "missing"),
    [
        ({"name": ...}, "name", True),
        ({"part": ...}, "part", True),
        ({"part": {}}, "size", True),
        ({"name": 1}, "name", False),
        ({"name": None}, "name", False),
        ({"part": 5}, "part", False),
        ({"part": {"size": True}}, "size", False),
        ({"part": {"size": 1.0}}, "size", False),
        ({"parts": {}}, "parts", False),
        ({"parts": [5]}, "parts", False),
        ({"parts": None}, "parts", False),
        ({"limits": {"b": "c"}}, "limits", False),
        ({"limits": []}, "limits", False),
        ({"flag": 1}, "flag", False),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_named(change: dict[str, Any], field: str, missing: bool) -> None:
    fields = {"name": "a", "part": {"size": 1}} | change
    with pytest.raises(FieldError) as raised:
        from_fields(Whole, {name: value for name, value in fields.items() if value is not ...})
    assert (raised.value.field, raised.value.missing) == (field, missing)


def test_no_two_messages_have_the_same_name() -> None:
    """`from_fields` finds the message in a field by its name."""
    with pytest.raises(TypeError, match="Part"):
        type("Part", (Message,), {"__annotations__": {}})
