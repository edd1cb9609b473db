"""What the broker accepts from a manifest reader, whose reply is checked like outside input."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker import helper_process, manifest_child
from remo_broker.broker.loop import Loop
from remo_broker.broker.manifest_child import Allowed, ManifestReader, NotRead, parse
from remo_broker.broker.refusals import Refused
from remo_broker.protocol.config import Config

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from remo_broker.broker.loop import Job

GOOD: dict[str, Any] = {"ok": True, "source": "/p/x", "allowlist": ["B", "A"], "ttl_seconds": 600, "max_entries": 16}
GOOD |= {"sha256": "0" * 64, "hosts": {"h:1": "A"}, "bindings": {"B": [{"env_var": "X"}]}}
# Nothing else in it is wrong when its names are replaced.
BARE = GOOD | {"hosts": {}, "bindings": {}}


def test_descriptors_that_a_reader_sends_are_closed(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compromised reader could otherwise exhaust the broker's descriptors."""
    monkeypatch.setattr(helper_process, "refuse_descriptors", lambda _: None)  # as on an older kernel
    with open(os.devnull) as sent:
        before = len(os.listdir("/proc/self/fd"))

        def answer(connection: socket.socket) -> None:
            socket.send_fds(connection, [json.dumps(GOOD).encode() + b"\n"], [sent.fileno()])

        assert isinstance(answered(directory, answer), Allowed)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_that_starts_late_is_waited_for(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine: the time that a project's files may take counts from when they are
    read."""
    monkeypatch.setattr(manifest_child, "READ_SECONDS", 0.2)

    def answer(connection: socket.socket) -> None:
        time.sleep(0.5)
        connection.sendall(b" " + json.dumps(GOOD).encode() + b"\n")

    assert isinstance(answered(directory, answer), Allowed)


@pytest.mark.parametrize(
    ("begun", "setting", "expected"),
    [
        (b"", "START_SECONDS", "to start"),
        (b" ", "READ_SECONDS", "reading it took"),
        (b" {", "READ_SECONDS", "reading it took"),
    ],
)
def test_a_reader_that_hangs_is_given_up(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, begun: bytes, setting: str, expected: str
) -> None:
    for name in ("START_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(manifest_child, name, 0.2 if name == setting else 600)

    def answer(connection: socket.socket) -> None:
        connection.sendall(begun)
        connection.recv(1)  # until the broker closes

    result = answered(directory, answer)
    assert isinstance(result, NotRead)
    assert expected in result.message


def answered(directory: pathlib.Path, answer: Callable[[socket.socket], None]) -> object:
    """What comes of a reading whose reader is `answer`, which gets the connection after the
    request."""
    (directory / "internal").mkdir()
    results = []
    with socket.socket(socket.AF_UNIX) as helper, contextlib.closing(Loop(print)) as loop:
        helper.bind(str(directory / "internal/manifest.sock"))
        helper.listen()
        reader = ManifestReader(loop, Config({"socket_dir": str(directory)}))

        def read() -> Job:
            results.append((yield reader.read("/p/x", "x")))
            loop.stop()

        def serve() -> None:
            connection, _ = helper.accept()
            with connection:
                connection.recv(65536)  # else its close would reset the connection
                answer(connection)

        serving = threading.Thread(target=serve)
        serving.start()
        loop.start(read())
        loop.run()
        serving.join()
    return results[0]


def said(document: Any) -> Allowed | Refused:
    return parse(json.dumps(document).encode(), Config())


def test_a_valid_reply_is_accepted() -> None:
    result = said(GOOD)
    assert isinstance(result, Allowed)
    assert (result.allowlist, result.ttl_seconds, result.max_entries) == (["B", "A"], 600, 16)
    assert (result.source.path, result.source.sha256, result.source.hosts) == ("/p/x", "0" * 64, {"h:1": "A"})
    assert result.source.bindings == b'{"B":[{"env_var":"X"}]}'
    nothing = {"allowlist": [], "hosts": {}, "bindings": {}, "ttl_seconds": 900, "max_entries": 64}
    assert isinstance(said(GOOD | nothing), Allowed)


@pytest.mark.parametrize(
    "odd",
    [
        {"sha256": "x" * 64},
        {"sha256": "0"},
        {"hosts": []},
        {"hosts": {"h": "OTHER"}},
        {"hosts": {"h": 1}},
        *({"hosts": {host: "A"}} for host in ("H", "h\x1b[2J", "\u0433ithub.com", "", "h/x", "user@h", "h:", ".h")),
        {"bindings": []},
        {"bindings": {"OTHER": []}},
        {"bindings": {"A": ["x" * 70_000]}},
    ],
)
def test_bindings_and_hosts_in_a_reply_are_checked(odd: dict[str, Any]) -> None:
    assert isinstance(said(GOOD | odd), Refused)


@pytest.mark.parametrize("code", ["manifest_invalid", "manifest_not_found", "manifest_unreadable"])
def test_refusals_keep_code_and_message(code: str) -> None:
    result = said(
        {"ok": False, "code": code, "message": "cache.ttl_seconds: \x1b[2J\nmore", "key": "cache.ttl_seconds"}
    )
    assert isinstance(result, Refused)
    assert (result.code, result.message) == (code, "cache.ttl_seconds: \\x1b[2J\\nmore")


def test_only_a_reader_stopped_at_its_deadline_is_tried_again() -> None:
    failure = {"ok": False, "code": "manifest_unreadable", "message": "x"}
    assert isinstance(said(failure | {"late": True}), NotRead)
    for refused in (failure, failure | {"late": 1}, {"ok": False, "code": "manifest_invalid", "message": "x"}, None):
        assert not isinstance(said(refused), NotRead)


def test_a_long_message_is_cut() -> None:
    result = said({"ok": False, "code": "manifest_invalid", "message": "x" * 100_000})
    assert isinstance(result, Refused)
    assert len(result.message) == 1000


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"ok": True},
        {"ok": False},
        {"ok": False, "code": "denied", "message": "x"},
        {"ok": False, "code": ["manifest_invalid"], "message": "x"},
        {"ok": False, "code": "manifest_invalid"},
        {"ok": 1} | {key: value for key, value in GOOD.items() if key != "ok"},
        BARE | {"allowlist": "A"},
        BARE | {"allowlist": ["A", "A"]},
        BARE | {"allowlist": ["A-B"]},
        BARE | {"allowlist": ["A" * 129]},
        BARE | {"allowlist": [["A"]]},
        BARE | {"allowlist": None},
        GOOD | {"ttl_seconds": 901},
        GOOD | {"ttl_seconds": 0},
        GOOD | {"ttl_seconds": True},
        GOOD | {"ttl_seconds": 600.0},
        GOOD | {"max_entries": 65},
        GOOD | {"max_entries": 0},
        GOOD | {"max_entries": "16"},
    ],
)
def test_a_malformed_reply_allows_nothing(document: Any) -> None:
    result = said(document)
    assert isinstance(result, Refused)
    assert result.code == "manifest_unreadable"


@pytest.mark.parametrize("output", [b"", b"\xff", b"{", b"[" * 100_000, json.dumps(GOOD).encode() * 2, b"9" * 5000])
def test_a_killed_or_failed_reader_allows_nothing(output: bytes) -> None:
    result = parse(output, Config())
    assert isinstance(result, Refused)
    assert result.code == "manifest_unreadable"
