"""push-creds and clear-creds."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH
from tests.support.broker import Broker, Link, registration
from tests.support.machine import poll

if TYPE_CHECKING:
    from tests.conftest import StartBroker

STATUS = b'{"op":"status"}\n'
HIDDEN = "zqMarkerqz"


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    names = [f"N{number}" for number in range(1000)]
    return start_broker(projects=[registration("myrepo", "A", "B", "b", *names)], rate_limit_per_second=0)


def test_the_reply_to_a_push(broker: Broker) -> None:
    before = int(time.time())
    reply = broker.ask({"op": "push-creds", "secrets": {"A": "x", "b": {"k": "v"}}, "secrets_b64": {"B": "AA=="}})
    assert list(reply) == ["ok", "loaded_at", "secret_count", "generation"]
    assert (reply["secret_count"], reply["generation"]) == (3, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reply["loaded_at"])
    status = broker.status()
    assert status["secrets_loaded_at"] == reply["loaded_at"]
    assert before <= status["secrets_loaded_usec"] // 1_000_000 <= int(time.time())
    assert broker.push({})["generation"] == 2


@pytest.mark.parametrize(
    ("request_fields", "code", "says"),
    [
        ({}, "protocol_error", "secrets"),
        ({"secrets": [HIDDEN]}, "protocol_error", "secrets"),
        ({"secrets": HIDDEN}, "protocol_error", "secrets"),
        ({"secrets": None}, "protocol_error", "secrets"),
        ({"secrets": {}, "secrets_b64": [HIDDEN]}, "protocol_error", "secrets_b64"),
        ({"secrets": {"A": 5}}, "invalid_payload", "secret A"),
        ({"secrets": {"A": [HIDDEN]}}, "invalid_payload", "secret A"),
        ({"secrets": {"b": {"k": {"l": HIDDEN}}}}, "invalid_payload", "field k"),
        ({"secrets": {"A": HIDDEN, HIDDEN + "-": "x"}}, "invalid_payload", "name 2 of secrets"),
        ({"secrets": {"A": HIDDEN}, "secrets_b64": {"A": "AA=="}}, "invalid_payload", "secret A"),
        ({"secrets": {}, "secrets_b64": {"A": HIDDEN + "!"}}, "invalid_payload", "secret A"),
        ({"secrets": {"A": HIDDEN + "x" * MAX_MESSAGE}}, "invalid_payload", "secret A"),
    ],
)
def test_a_refused_push_changes_nothing_and_repeats_no_value(
    shared: Broker, request_fields: dict[str, Any], code: str, says: str
) -> None:
    with Link(shared.admin) as operator:
        before = operator.ask(STATUS)
        operator.send({"op": "push-creds", **request_fields})
        answer = operator.line()
        refusal = json.loads(answer)
        assert (refusal["ok"], refusal["code"]) == (False, code)
        assert says in refusal["message"]
        assert HIDDEN not in answer.decode()
        after = operator.ask(STATUS)
        for key in ("generation", "secret_count", "secrets_loaded_usec"):
            assert after[key] == before[key]
    assert shared.get("GITHUB_TOKEN")["value"] == "ghp_example"
    assert not any(HIDDEN in str(record) for record in shared.records())


def test_duplicates_and_bad_strings_in_a_push(shared: Broker) -> None:
    with Link(shared.admin) as operator:
        for values in (
            b'{"A":"x","A":"y"}',
            b'{"A":"x","\\u0041":"y"}',
            b'{"b":{"k":"x","k":"y"}}',
            b'{"A":"\xff"}',
            b'{"A":"\\ud800"}',
            b'{"A":"\xf1"}',
            b'{"A":"x\x01"}',
        ):
            reply = operator.ask(b'{"op":"push-creds","secrets":' + values + b"}\n")
            assert (reply["code"], operator.ask(STATUS)["generation"]) == ("protocol_error", 1)


@pytest.mark.parametrize(
    "value", ["", "é☃\U0001f511", '"\\/\b\f\n\r\t', "\0\x7f\u2028", "a" * 60_000, "\\u0041", "\ud7ff\ue000"]
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_values_are_returned_unchanged(broker: Broker, value: str, ascii_only: bool) -> None:
    request = {"op": "push-creds", "secrets": {"A": value, "b": {"k": value[:5000], "l": value[:9]}}}
    assert broker.ask(json.dumps(request, ensure_ascii=ascii_only).encode() + b"\n")["ok"]
    assert broker.get("A")["value"] == value
    assert json.loads(broker.get("b")["value"]) == {"k": value[:5000], "l": value[:9]}


def test_the_longest_value_makes_the_longest_reply(broker: Broker) -> None:
    room = MAX_MESSAGE - len('{"ok":true,"value":"","ttl_seconds":900,"generation":1}\n')
    refusal = broker.ask({"op": "push-creds", "secrets": {"A": "x" * (room + 1)}})
    assert refusal["code"] == "invalid_payload"
    broker.push({"A": "x" * room})
    with Link(broker.project()) as client:
        client.send({"op": "get", "name": "A"})
        assert len(client.line()) == MAX_MESSAGE


def full_push(size: int) -> bytes:
    """A push of exactly `size` bytes, newline included, in twenty values."""
    secrets = {f"N{number}": "x" * 52_000 for number in range(20)}
    spare = size - len(json.dumps({"op": "push-creds", "secrets": secrets})) - 1
    secrets["N0"] += "y" * (spare // 2)
    secrets["N1"] += "y" * (spare - spare // 2)
    line = json.dumps({"op": "push-creds", "secrets": secrets}).encode() + b"\n"
    assert len(line) == size
    return line


@pytest.mark.parametrize("size", [MAX_PUSH - 1, MAX_PUSH])
def test_the_longest_push(broker: Broker, size: int) -> None:
    with Link(broker.admin) as operator:
        operator.send(full_push(size) + STATUS + full_push(size) + STATUS)
        assert [operator.reply().get("secret_count") for _ in range(4)] == [20, 20, 20, 20]
    assert broker.get("N19")["value"] == "x" * 52_000
    assert broker.get("N1")["generation"] == 2


def test_a_push_of_one_byte_too_many(broker: Broker) -> None:
    broker.push({"A": "old"})
    with Link(broker.admin) as operator:
        operator.send(full_push(MAX_PUSH + 1) + STATUS)
        (answer,) = operator.rest().splitlines()
    refusal = json.loads(answer)
    assert (refusal["code"], refusal["reason"]) == ("payload_too_large", "too_long")
    assert str(MAX_PUSH) in refusal["message"]
    assert broker.get("A")["value"] == "old"


def test_a_push_of_small_bundles_that_grow(broker: Broker) -> None:
    """Quotes are escaped when a bundle becomes a string; a valid push is not refused for that."""
    bundles = {f"N{number}": {f"F{field}": '"' for field in range(3000)} for number in range(22)}
    line = json.dumps({"op": "push-creds", "secrets": bundles}, separators=(",", ":")).encode() + b"\n"
    assert len(line) < MAX_PUSH
    with Link(broker.admin) as operator:
        assert operator.ask(line)["secret_count"] == 22
    assert json.loads(broker.get("N21")["value"]) == bundles["N21"]


def test_a_push_without_a_newline(broker: Broker) -> None:
    with Link(broker.admin) as operator:
        operator.send(json.dumps({"op": "push-creds", "secrets": {"A": "x"}}).encode())
        operator.say_no_more()
        assert json.loads(operator.rest())["secret_count"] == 1


def test_a_push_in_small_pieces(broker: Broker) -> None:
    line = json.dumps({"op": "push-creds", "secrets": {"A": "pieces", "b": {"k": "v"}}}).encode() + b"\n"
    with Link(broker.admin) as operator, Link(broker.admin) as other:
        for position in range(len(line)):
            operator.send(line[position : position + 1])
            if position % 8 == 0:
                assert other.ask(STATUS)["generation"] == 0
        assert operator.reply()["generation"] == 1
    assert broker.get("A")["value"] == "pieces"


def test_a_client_that_disconnects_during_a_push_changes_nothing(broker: Broker) -> None:
    broker.push({"A": "old"})
    before = broker.descriptors()
    for size in (10, 1000, 70_000, 900_000):
        with Link(broker.admin) as operator:
            operator.send(full_push(MAX_PUSH)[:size])
    assert broker.get("A")["value"] == "old"
    assert broker.status()["generation"] == 1
    poll("the connections to be gone", lambda: broker.descriptors() <= before)


def test_concurrent_pushes_are_each_applied_as_a_whole(broker: Broker) -> None:
    """Their lines are read alternately; each push is applied in one step, in some order."""
    links = [Link(broker.admin) for _ in range(4)]  # this many lines fit into the memory that an ordinary user may lock
    lines = [
        json.dumps({"op": "push-creds", "secrets": {f"N{item}": str(number) for item in range(1000)}}).encode() + b"\n"
        for number in range(len(links))
    ]
    for link, line in zip(links, lines, strict=True):
        link.send(line[:5000])
    for link, line in zip(links, lines, strict=True):
        link.send(line[5000:])
    generations = sorted(link.reply()["generation"] for link in links)
    for link in links:
        link.close()
    assert generations == list(range(1, len(links) + 1))
    assert len({broker.get(f"N{item}")["value"] for item in range(0, 1000, 97)}) == 1


def test_clearing(broker: Broker) -> None:
    broker.push({"A": "x"})
    assert broker.ask({"op": "clear-creds"}) == {"ok": True}
    status = broker.status()
    assert (status["secrets_loaded_at"], status["secrets_loaded_usec"], status["secret_count"]) == (None, 0, 0)
    assert status["generation"] == 1
    assert broker.ask({"op": "clear-creds"}) == {"ok": True}
    assert broker.push({"A": "y"})["generation"] == 2


def test_others_are_served_while_a_push_is_read(broker: Broker) -> None:
    """A client that sends half a push delays no other client."""
    broker.push({"A": "x"})
    with Link(broker.admin) as slow, Link(broker.admin) as other:
        slow.send(full_push(MAX_PUSH)[:500_000])
        assert other.ask(STATUS)["ok"]
        assert broker.get("A")["value"] == "x"


def test_the_audit_of_a_push(broker: Broker) -> None:
    broker.push({"A": HIDDEN, "b": {"k": HIDDEN}})
    broker.ask({"op": "clear-creds"})
    broker.ask({"op": "push-creds", "secrets": {"A": 5}})
    pushed, cleared = broker.records("secrets.pushed") + broker.records("secrets.cleared")
    assert (pushed["REMO_SECRET_COUNT"], pushed["REMO_GENERATION"], pushed["PRIORITY"]) == ("2", "1", "5")
    assert (cleared["REMO_SECRET_COUNT"], cleared["REMO_GENERATION"], cleared["PRIORITY"]) == ("2", "1", "5")
    for record in (pushed, cleared):
        assert {"REMO_PEER_PID", "REMO_PEER_UID", "REMO_PEER_GID", "MESSAGE_ID"} <= set(record)
    assert HIDDEN not in broker.log.read_text()
