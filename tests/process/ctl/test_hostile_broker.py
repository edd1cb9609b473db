"""`remo-brokerctl` shows what a broker says that somebody has taken over as escaped text."""

from __future__ import annotations

import copy
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.process.ctl.conftest import write_project
from tests.support import programs
from tests.support.hostile_peer import ADMIN_REPLIES, HOSTILE, NAMES, OBEYED, Listener

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

COMMANDS = [
    *(["status"], ["list"], ["show", "app"], ["show", "--names", "app"], ["register", "--no-enable", "app"]),
    *(["unregister", "--no-enable", "app"], ["reload", "app"], ["reload", "--all"], ["diff", "app"]),
    *(["push", "secrets.json"], ["push", "--dry-run", "secrets.json"], ["clear"], ["explain", "app", "A"]),
    *(["check", "--credentials=x.service"], ["explain", "--unit=x.service", "c"], ["devcontainer", "app"]),
]


@pytest.fixture
def listener(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.chdir(write_project(directory, "app", "A").parent)
    (directory / "secrets.json").write_text('{"A": "x"}')
    with Listener(str(directory / "hostile.sock")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.escapes = True
        yield server
        server.shutdown()


def shown(listener: Listener, command: list[str]) -> tuple[int, bytes]:
    """Its status and what it writes to a terminal, where it shows the most."""
    where = f"--socket={os.fspath(listener.server_address)}"  # type: ignore[arg-type]
    argv = programs.command(programs.BROKERCTL, where, "--no-pager", *command)
    done = programs.run_on_terminal(argv, {"NO_COLOR": "1"})
    return done.status, done.text.encode()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_control_characters(listener: Listener, command: list[str], fails: bool) -> None:
    listener.fails = fails
    _, text = shown(listener, command)
    assert not [one for one in OBEYED if one in text]
    assert b"internal error" not in text


def with_name(operation: str, place: tuple[str | int, ...], name: str) -> dict[str, Any]:
    reply: Any = copy.deepcopy(ADMIN_REPLIES[operation])
    inner = reply
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = name
    found: dict[str, Any] = reply
    return found


OF_OPERATION = {
    "status": ["status"],
    "show": ["show", "app"],
    "reload": ["reload", "app"],
    "preview": ["diff", "app"],
    "push-creds": ["push", "secrets.json"],
}


@pytest.mark.parametrize(
    ("operation", "place"),
    [(operation, place) for operation, places in NAMES.items() for place in places],
    ids=str,
)
def test_a_name_that_no_broker_has_is_a_malformed_reply(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, operation: str, place: tuple[str | int, ...]
) -> None:
    for name in (HOSTILE, "$(id)", "../x", ""):
        monkeypatch.setitem(ADMIN_REPLIES, operation, with_name(operation, place, name))
        status, text = shown(listener, OF_OPERATION[operation])
        assert status != 0
        assert b"malformed reply" in text
        assert not [one for one in OBEYED if one in text]
