"""A refused push leaves no copy, whatever the reason."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH
from tests.process.memory.traces import assert_not_written, assert_one_copy_each, handled
from tests.support.broker import Broker, Link
from tests.support.host_memory import require_memfd_secret
from tests.support.machine import poll
from tests.support.scanner import LENGTHS, Findings, Scanner, awkward, forms, make_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartBroker

Refusal = tuple[bytes, str]


def refused_pushes(values: list[str]) -> dict[str, Refusal]:
    """Every kind of refused push, each with values in it, and its code."""
    filling: dict[str, Any] = {f"V{number}": value for number, value in enumerate(values)}
    good = json.dumps({"op": "push-creds", "secrets": filling}).encode()

    def push(secrets: object, **fields: object) -> bytes:
        return json.dumps({"op": "push-creds", "secrets": secrets, **fields}).encode()

    twice = good[:-2] + b"," + json.dumps({"V0": values[0]}).encode()[1:] + b"}"
    plain_value = values[0]
    return {
        "bad JSON at the end": (good[:-2] + b",}}", "protocol_error"),
        "cut short": (good[:-3], "protocol_error"),
        "something behind it": (good + b'{"x":' + json.dumps(plain_value).encode() + b"}", "protocol_error"),
        "bad UTF-8 at the end": (good[:-3] + b'\xff"}}', "protocol_error"),
        "control character in a value": (good[:-3] + b'\x01"}}', "protocol_error"),
        "lone surrogate in a value": (good[:-3] + b'\\ud800"}}', "protocol_error"),
        "byte-order mark": (b"\xef\xbb\xbf" + good, "protocol_error"),
        "too deep": (push(filling | {"deep": json.loads("[" * 20 + "]" * 20)}), "protocol_error"),
        "a name twice": (twice, "protocol_error"),
        "a field twice": (
            good[:-2] + b',"B":{"f":"1","f":' + json.dumps(plain_value).encode() + b"}}}",
            "protocol_error",
        ),
        "a value for a key, twice": (
            good[:-2] + b',"B":{%b:"","f":"",%b:""}}}' % ((json.dumps(values[-1]).encode(),) * 2),
            "protocol_error",
        ),
        "in both": (push(filling, secrets_b64={"V0": "AAAA"}), "invalid_payload"),
        "bad name": (push(filling | {"not-a-name": values[1]}), "invalid_payload"),
        "a value for a name": (push(filling | {values[-1]: "x"}), "invalid_payload"),
        "bad field name": (push(filling | {"B": {"a b": values[1]}}), "invalid_payload"),
        "a value for a field name": (push(filling | {"B": {values[-1]: values[1]}}), "invalid_payload"),
        "a list for a value": (push(filling | {"B": [values[1]]}), "invalid_payload"),
        "a number for a value": (push(filling | {"B": 12}), "invalid_payload"),
        "a list for a field": (push(filling | {"B": {"a": [values[1]]}}), "invalid_payload"),
        "nested bundle behind a good one": (
            push({"A": {"a": values[1], "b": values[-1]}, "B": {"a": {"b": values[1]}}}),
            "invalid_payload",
        ),
        "bad base64": (push(filling, secrets_b64={"B": values[-1]}), "invalid_payload"),
        "base64 without padding": (
            push(filling, secrets_b64={"B": base64.b64encode(plain_value.encode() + b"a").decode().rstrip("=")}),
            "invalid_payload",
        ),
        "a value too long": (
            push(filling | {"B": plain_value * (MAX_MESSAGE // len(plain_value) + 1)}),
            "invalid_payload",
        ),
        "a bundle too long": (
            push(filling | {"B": {f"f{number}": value for number, value in enumerate(values * 30)}}),
            "invalid_payload",
        ),
        "too long": (push(filling | {"B": plain_value * (MAX_PUSH // len(plain_value))}), "payload_too_large"),
        "no object": (push(values), "protocol_error"),
        "the values alone": (json.dumps(filling).encode(), "protocol_error"),
        "a value alone": (json.dumps(plain_value).encode(), "protocol_error"),
        "no JSON at all": (plain_value.encode() + values[-1].encode().replace(b"\n", b" "), "protocol_error"),
        "unknown op": (good.replace(b'"push-creds"', b'"push-cred"'), "protocol_error"),
        "op not a string": (good.replace(b'"push-creds"', b"1"), "protocol_error"),
        "a value for an op": (good.replace(b'"push-creds"', json.dumps(values[-1]).encode()), "protocol_error"),
        "another op": (
            good.replace(b'"push-creds"', b'"show","name":' + json.dumps(values[-1]).encode()),
            "project_unknown",
        ),
        "another op, too long": (
            good.replace(b'"push-creds"', b'"status","x":"' + plain_value.encode() * 200 + b'"'),
            "protocol_error",
        ),
        "another op with a value for a name of a field, too long": (
            good.replace(b'"push-creds"', b'"status",%b:"%b"' % (json.dumps(values[-1]).encode(), b"x" * MAX_MESSAGE)),
            "protocol_error",
        ),
        "another op with a value for a name of a field, refused later": (
            good.replace(
                b'"push-creds"',
                b'"register","name":"x","project_path":"/nowhere/x",%b:1' % json.dumps(values[-1]).encode(),
            ),
            "manifest_not_found",
        ),
        "another op with a value for a path": (
            good.replace(b'"push-creds"', b'"register","name":"x","project_path":' + json.dumps(values[-1]).encode()),
            "protocol_error",
        ),
    }


REFUSALS = tuple(refused_pushes([plain(random.Random(0), 400)] * 6))


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_push(fallback: Broker, look: Callable[[list[str | bytes]], Findings], kind: str) -> None:
    random_ = random.Random(kind)
    values = [plain(random_, 400), *(awkward(random_, length) for length in LENGTHS[1:]), plain(random_, 8)]
    values.append(awkward(random_, 250))
    line, code = refused_pushes(values)[kind]
    with Link(fallback.admin) as link:
        link.send(line + b"\n")
        answer = link.line()
        handled(fallback, link)
        assert json.loads(answer)["code"] == code
        assert not look(list(values)).hits
    assert not any(form in answer for value in values for _, form in forms(value))
    assert fallback.status()["secret_count"] == 0
    assert_not_written(fallback, list(values))


def test_refused_push_behind_a_push(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """It was received into the memory that the store keeps, and must not remain there."""
    taken, refused = make_secrets(100, "taken"), make_secrets(100, "refused")
    with Link(fallback.admin) as link:
        link.send(taken.line() + refused.line()[:-3] + b"\n")
        assert [link.reply()["ok"] for _ in range(2)] == [True, False]
        assert_one_copy_each(look(taken.values), len(taken.values))
        assert not look(refused.values).hits


def test_refused_push_before_an_unfinished_line(
    fallback: Broker, look: Callable[[list[str | bytes]], Findings]
) -> None:
    """The connection keeps its memory for later lines, but not the content of earlier ones."""
    refused = make_secrets(100, "before")
    with Link(fallback.admin) as link:
        link.send(refused.line()[:-3] + b'\n{"op":')
        assert not link.reply()["ok"]
        assert not look(refused.values).hits


def test_refused_push_before_lines_that_wait(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """Later lines stay where they were received while earlier replies are unread."""
    refused = make_secrets(100, "waiting")
    marker = plain(random.Random("marker"), 400)
    with Link(fallback.admin) as link:
        link.send(refused.line()[:-3] + b"\n" + b'{"op":"status"}\n' * 5000 + marker.encode())
        handled(fallback, link)
        assert look([marker]).hits, "nothing waits"
        assert not look(refused.values).hits


# --- what still comes


@pytest.mark.parametrize("kind", ["too long", "too many"])
def test_data_after_a_final_reply_is_not_kept(scanner: Scanner, start_broker: StartBroker, kind: str) -> None:
    """After a final reply, the broker reads and discards data for a while: it may be the rest of a
    push."""
    broker = start_broker(max_connections_admin=1 if kind == "too many" else 2)
    before = broker.descriptors()
    require_memfd_secret()
    value = plain(random.Random(kind), 400)
    poll("the first connection to be closed", lambda: broker.descriptors() <= before)
    with Link(broker.admin) as other, Link(broker.admin) as link:
        assert other.ask({"op": "status"})["ok"]
        link.send(value.encode() * (MAX_PUSH // 400 + 1 if kind == "too long" else 1))
        assert link.reply()["reason"] == ("too_long" if kind == "too long" else "too_many_connections")
        sender = threading.Thread(target=send_until_closed, args=(link, value.encode() * 1000))
        sender.start()
        found, scans = 0, 0
        while sender.is_alive():
            found += len(scanner.scan(broker.pid, [value]).hits)
            scans += 1
        sender.join()
    assert scans
    assert not found


def send_until_closed(link: Link, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            link.socket.sendall(data)


def test_the_keys_of_a_line_that_is_too_long_are_not_kept(
    fallback: Broker, look: Callable[[list[str | bytes]], Findings]
) -> None:
    """The refusal is a constant: its traceback would keep them until it is raised again."""
    random_ = random.Random(1)
    keys = [plain(random_, length) for length in (40, 100, 400)]
    line = json.dumps({"op": "reload", **dict.fromkeys(keys, 1), "filling": "x" * MAX_MESSAGE}).encode()
    with Link(fallback.admin) as link:
        link.send(line + b"\n")
        assert link.reply()["reason"] == "too_long"
    assert fallback.status()["secret_count"] == 0
    assert not look(list(keys)).hits
