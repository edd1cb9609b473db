"""Framing, on every socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH
from tests.support.broker import FILES_OF_LAST_PEER, Link
from tests.support.lines import MARKER, REFUSED, nested
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib

    from tests.support.broker import Broker, Reply

PING = b'{"op":"ping"}\n'
STATUS = b'{"op":"status"}\n'
SOCKETS = ("project", "admin", "status")


def path_of(broker: Broker, which: str) -> pathlib.Path:
    return {"project": broker.project(), "admin": broker.admin, "status": broker.status_socket}[which]


def harmless(which: str) -> bytes:
    return PING if which == "project" else STATUS


def padded(request: dict[str, object], size: int) -> bytes:
    """The request as a line of exactly `size` bytes, newline included, padded by an unknown
    field."""
    line = json.dumps(request | {"pad": ""}).encode() + b"\n"
    return json.dumps(request | {"pad": "x" * (size - len(line))}).encode() + b"\n"


def assert_failure(reply: Reply, code: str, reason: str) -> None:
    assert list(reply)[:4] == ["ok", "code", "message", "reason"]
    assert (reply["ok"], reply["code"], reply["reason"]) == (False, code, reason)
    assert "\n" not in reply["message"]


@pytest.mark.parametrize("which", SOCKETS)
def test_a_refused_line_leaves_the_connection_usable(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        for name, (line, reason) in REFUSED.items():
            link.send(line + b"\n")
            answer = link.line()
            assert_failure(json.loads(answer), "protocol_error", reason)
            assert MARKER not in answer.decode(), name
            assert link.ask(harmless(which))["ok"], name


@pytest.mark.parametrize("which", SOCKETS)
def test_sixteen_levels_and_unknown_fields_are_accepted(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        assert link.ask(nested(16).replace(b"ping", json.loads(harmless(which))["op"].encode()) + b"\n")["ok"]
        assert link.ask(json.loads(harmless(which)) | {"extra": [None, True, -1.5e3, {"a": {}}]})["ok"]


@pytest.mark.parametrize("which", SOCKETS)
def test_surrounding_carriage_returns_and_spaces_are_accepted(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        assert link.ask(b" \t" + harmless(which)[:-1] + b" \r\n")["ok"]


@pytest.mark.parametrize("which", SOCKETS)
def test_the_end_of_the_stream_ends_the_last_line(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        link.send(harmless(which) + harmless(which)[:-1])
        link.say_no_more()
        assert [json.loads(line)["ok"] for line in link.rest().splitlines()] == [True, True]


@pytest.mark.parametrize("which", SOCKETS)
def test_a_truncated_last_line_is_refused_and_the_connection_closed(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        link.send(b'{"op":"st')
        link.say_no_more()
        (answer,) = link.rest().splitlines()
        assert_failure(json.loads(answer), "protocol_error", "invalid_json")


@pytest.mark.parametrize("which", SOCKETS)
def test_no_request_gets_no_reply(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        link.say_no_more()
        assert link.rest() == b""


@pytest.mark.parametrize("which", SOCKETS)
def test_split_at_every_byte(shared: Broker, which: str) -> None:
    line = harmless(which)
    with Link(path_of(shared, which)) as link, Link(path_of(shared, which)) as other:
        for position in range(1, len(line)):
            link.send(line[:position])
            assert other.ask(harmless(which))["ok"]  # the first part has been read by now
            link.send(line[position:])
            assert link.reply()["ok"], position


def test_pipelined_requests_are_answered_in_order(client: Link) -> None:
    names = [f"NAME_{number}" for number in range(3)] + ["GITHUB_TOKEN", "no such", "MISSING"]
    requests = [{"op": "get", "name": names[number % len(names)]} for number in range(600)]
    for number, request in enumerate(requests):
        if number % 7 == 0:
            request.clear()  # an error in between
    client.send(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
    wanted: dict[object, str | None] = {
        None: "missing_field",
        "GITHUB_TOKEN": None,
        "MISSING": "not_in_snapshot",
        "no such": "invalid_name",
        **{f"NAME_{number}": "not_in_manifest" for number in range(3)},
    }
    assert [client.reply().get("reason") for _ in requests] == [wanted[request.get("name")] for request in requests]


def test_a_pipelining_client_that_reads_late_gets_everything(shared: Broker, client: Link) -> None:
    """Ten thousand gets are sent before a reply is read; other clients are served meanwhile."""
    count = 10_000
    sender = threading.Thread(target=client.send, args=[b'{"op":"get","name":"GITHUB_TOKEN"}\n' * count])
    sender.start()
    with Link(shared.project()) as other:
        for _ in range(100):
            assert other.ask(PING)["ok"]
    for _ in range(count):
        assert client.line().startswith(b'{"ok":true,"value":"ghp_example",')
    sender.join()
    assert client.ask(PING)["ok"]


def test_pipelined_requests_are_not_accumulated(shared: Broker) -> None:
    """The broker reads no faster than it answers: its memory does not grow with the requests."""
    before = shared.resident_kib()
    with Link(shared.project()) as link:
        answers = 0

        def read() -> None:
            nonlocal answers
            while data := link.socket.recv(1 << 20):
                answers += data.count(b"\n")

        reader = threading.Thread(target=read)
        reader.start()
        most = 0
        for _ in range(10):
            link.send(PING * 5000)
            most = max(most, shared.resident_kib())
        link.say_no_more()
        reader.join()
    assert answers == 50_000
    assert most - before < 300


def test_admin_requests_are_pipelined_too(operator: Link) -> None:
    operator.send(b'{"op":"status"}\n{"op":"nonsense"}\n{"op":"show","name":"nobody"}\n' * 50)
    replies = [operator.reply() for _ in range(150)]
    assert [reply.get("code") for reply in replies] == [None, "protocol_error", "project_unknown"] * 50


@pytest.mark.parametrize("size", [MAX_MESSAGE - 1, MAX_MESSAGE])
def test_the_longest_request(shared: Broker, size: int) -> None:
    with Link(shared.project()) as client, Link(shared.admin) as operator:
        for _ in range(2):
            assert client.ask(padded({"op": "ping"}, size))["ok"]
            assert operator.ask(padded({"op": "status"}, size))["ok"]


@pytest.mark.parametrize("which", ["project", "admin"])
def test_one_byte_too_many(shared: Broker, which: str) -> None:
    with Link(path_of(shared, which)) as link:
        line = padded(json.loads(harmless(which)), MAX_MESSAGE + 1)
        link.send(harmless(which) + line + harmless(which))
        first, second = (json.loads(answer) for answer in link.rest().splitlines())
    assert first["ok"]
    assert_failure(second, "protocol_error", "too_long")
    assert str(MAX_MESSAGE) in second["message"]


def test_only_a_push_may_exceed_the_limit(operator: Link) -> None:
    """A longer line that is not recognised as a push is refused, and the connection closed."""
    operator.send(padded({"op": "nonsense"}, MAX_MESSAGE + 1) + STATUS)
    (answer,) = operator.rest().splitlines()
    assert_failure(json.loads(answer), "protocol_error", "too_long")


@pytest.mark.parametrize(
    "line",
    [
        b"x" * MAX_MESSAGE,
        b"\xff" * (MAX_PUSH - 1),
        b'{"op":"status","pad":"' + b"x" * MAX_MESSAGE,
        b'{"op":"status","pad":"' + b"x" * MAX_MESSAGE + b'"}}',
        b"[" * MAX_MESSAGE,
        b'["op","push-creds","' + b"x" * MAX_MESSAGE + b"]",
        b'{"a":1,"a":2,"op":"push-creds","secrets":{"A":"' + b"x" * MAX_MESSAGE + b'"}}',
    ],
    ids=["text", "bytes", "cut short", "too many brackets", "too deep", "a list", "a duplicate"],
)
@pytest.mark.parametrize("newline", [b"\n", b""])
def test_a_long_malformed_line_ends_the_connection(operator: Link, line: bytes, newline: bytes) -> None:
    """It cannot be recognised as a push, so the shorter limit applies."""
    operator.send(line + b"x" * (not newline) + newline + (STATUS if newline else b""))
    operator.say_no_more()
    (answer,) = operator.rest().splitlines()
    assert json.loads(answer)["code"] == "protocol_error"


def test_a_long_malformed_push_does_not_end_the_connection(operator: Link) -> None:
    for secrets in (b'{"A":"' + b"x" * MAX_MESSAGE + b'\xff"}', b'{"A":"","A":"' + b"x" * MAX_MESSAGE + b'"}'):
        reply = operator.ask(b'{"op":"push-creds","secrets":' + secrets + b"}\n")
        assert reply["code"] == "protocol_error"
        assert operator.ask(STATUS)["ok"]


@pytest.mark.parametrize("which", ["project", "admin"])
def test_the_longest_line_may_end_with_the_stream(shared: Broker, which: str) -> None:
    """A line's length includes its newline, if it has one."""
    with Link(path_of(shared, which)) as link:
        link.send(padded(json.loads(harmless(which)), MAX_MESSAGE + 1)[:-1])
        link.say_no_more()
        assert json.loads(link.rest())["ok"]


def test_a_long_status_request_is_refused(shared: Broker) -> None:
    with Link(shared.status_socket) as link:
        link.send(padded({"op": "status"}, MAX_MESSAGE + 1))
        (answer,) = link.rest().splitlines()
    assert_failure(json.loads(answer), "protocol_error", "too_long")


@pytest.mark.parametrize(
    ("which", "code"), [("project", "protocol_error"), ("admin", "payload_too_large"), ("status", "protocol_error")]
)
@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_client_that_sends_too_much_can_read_the_refusal(
    shared: Broker, which: str, code: str, newline: bytes
) -> None:
    """It sends everything before it reads: closing at once would make the sending fail."""
    with Link(path_of(shared, which)) as link:
        link.send(b'{"op":"' + b"x" * (2 * MAX_PUSH) + newline)
        (answer,) = link.rest().splitlines()
    assert_failure(json.loads(answer), code, "too_long")


def test_a_reply_is_written_in_one_piece(client: Link) -> None:
    """A client that reads once gets the whole reply."""
    for _ in range(2000):
        client.send(b'{"op":"get","name":"GITHUB_TOKEN"}\n')
        assert client.socket.recv(65536).endswith(b"}\n")


def test_a_shell_client_reads_once_and_closes(shared: Broker) -> None:
    for which in SOCKETS:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path_of(shared, which)))
            client.send(harmless(which))
            assert json.loads(client.recv(65536))["ok"]


@pytest.mark.parametrize("which", SOCKETS)
def test_a_client_may_vanish_at_any_time(shared: Broker, which: str) -> None:
    before = shared.descriptors()
    for data in (b"", b"{", harmless(which), harmless(which) * 1000, b"x" * 200_000):
        with Link(path_of(shared, which)) as link:
            link.socket.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                link.send(data)
    with Link(path_of(shared, which)) as link:
        assert link.ask(harmless(which))["ok"]
    poll("its descriptors to be closed", lambda: shared.descriptors() <= before + FILES_OF_LAST_PEER)
