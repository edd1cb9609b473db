"""The page of the protocol against its messages, in both directions: words, numbers and
examples."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from remo_broker.broker.audit import trail
from remo_broker.broker.credentials import IN_CONFIGURATION
from remo_broker.broker.expiry_timer import HALF_SENT_SECONDS
from remo_broker.broker.sockets.connection import PEER_SECONDS
from remo_broker.protocol import audit_records, ops, replies, shared_limits
from remo_broker.protocol.codes import ADMIN_CODES, PROJECT_CODES, Protection, Reason
from remo_broker.protocol.message import Message
from remo_broker.protocol.names import MAX_SHOWN_NAME, REFUSED_PROJECT_NAMES
from remo_broker.protocol.ops import ADMIN_REQUESTS, PROJECT_REQUESTS, STATUS_REQUESTS
from remo_broker.protocol.replies import EVENTS
from remo_broker.protocol.shared_limits import MAX_UIDS
from tests.contract.man.pages import arguments, missing, page, source

PAGE = "remo-broker-protocol.7"
REQUESTS = {**PROJECT_REQUESTS, **ADMIN_REQUESTS, **STATUS_REQUESTS}
# Some ops are on several sockets, and not the same on each.
CLASSES = {*PROJECT_REQUESTS.values(), *ADMIN_REQUESTS.values(), *STATUS_REQUESTS.values()}
WATCH_EVENTS = {replies.PUSHED, replies.CLEARED, replies.RELOADED}
CODES = {str(code) for code in (*PROJECT_CODES, *ADMIN_CODES)}
REASONS = {str(reason) for reason in Reason}
MESSAGES: list[type[Message]] = [
    *(cls for request in CLASSES for cls in (request, *request.REPLIES)),
    *(replies.Failure, replies.AuditStatus, replies.ProjectStatus, replies.PushChanges),
]
FIELDS = {field for cls in MESSAGES for field in cls.FIELDS}
EVENT_FIELDS = {field for cls in EVENTS.values() for field in cls.FIELDS}


def test_every_op_field_code_and_reason() -> None:
    assert missing(PAGE, sorted({*REQUESTS, *EVENTS} | WATCH_EVENTS | CODES | REASONS | FIELDS | EVENT_FIELDS)) == []


def test_no_word_that_means_nothing() -> None:
    """Every word that is marked up as one of the protocol is one."""
    others = {"op", "NaN", "Infinity", "usec"} | {
        str(word) for kind in (audit_records.Backend, Protection) for word in kind
    }
    others |= REFUSED_PROJECT_NAMES | set(replies.UnitCredential.FIELDS) | {IN_CONFIGURATION}
    others |= {trail.NOT_TAKEN, trail.NOT_STORED, trail.UNCHECKED}
    known = {*REQUESTS, *EVENTS} | WATCH_EVENTS | CODES | REASONS | FIELDS | EVENT_FIELDS | others
    assert arguments(source(PAGE), "Cm") - known == set()


def test_numbers() -> None:
    text = page(PAGE)
    for promise in (
        f"its newline included, has {shared_limits.MAX_MESSAGE} bytes",
        f"request may have {shared_limits.MAX_PUSH}",
        f"more than {shared_limits.MAX_DEPTH} levels",
        f"not finished within {PEER_SECONDS:g} seconds",
        f"nothing to send for {shared_limits.KEEP_ALIVE_SECONDS:g} seconds",
        f"at most {HALF_SENT_SECONDS:g} seconds later",
        f"at most {MAX_UIDS} uids",
        f"at most {MAX_SHOWN_NAME} letters, digits and underscores",
    ):
        assert promise in text, promise


def examples() -> list[list[dict[str, Any]]]:
    """The objects of each displayed block: a request, and what may be answered."""
    found = []
    for block in re.findall(r"^\.Bd .*\n((?:(?!\.Ed).*\n)*)\.Ed", source(PAGE), re.MULTILINE):
        text, objects = block.replace("\n", " ").strip(), []
        while text.startswith("{") and "CODE" not in text:
            value, end = json.JSONDecoder().raw_decode(text)
            objects.append(value)
            text = text[end:].strip()
        if objects:
            found.append(objects)
    return found


@pytest.mark.parametrize("objects", examples(), ids=lambda objects: str(objects[0].get("op")))
def test_an_example_is_one(objects: list[dict[str, Any]]) -> None:
    fields, *answers = objects
    op = fields.pop("op")
    assert any(matches(request, fields, answers) for request in CLASSES if op == request.OP)


def matches(request: type[ops.Request], fields: dict[str, Any], answers: list[dict[str, Any]]) -> bool:
    """Whether the fields are those of a request, and each of the answers one of its replies."""
    return (
        set(fields) <= set(request.FIELDS)
        and all(request.optional(field) or field in fields for field in request.FIELDS)
        and all(
            any(
                set(answer) <= set(reply.FIELDS)
                and all(reply.optional(field) or field in answer for field in reply.FIELDS)
                for reply in request.REPLIES
            )
            for answer in answers
        )
    )


def test_every_op_has_an_example() -> None:
    assert {objects[0]["op"] for objects in examples()} == set(REQUESTS)
