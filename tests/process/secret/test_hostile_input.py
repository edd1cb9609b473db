"""`remo-secret` shows input from a hostile listener or repository as escaped text."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.hostile_peer import COMMANDS, HOSTILE, OBEYED, REPLIES, REQUESTS, Listener

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def listener(directory: pathlib.Path) -> Iterator[Listener]:
    with Listener(str(directory / "hostile.sock")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_control_characters(
    listener: Listener, directory: pathlib.Path, command: list[str], fails: bool
) -> None:
    listener.fails = fails
    environment = {"HOME": str(directory), "REMO_BROKER_SOCKET": os.fspath(listener.server_address)}  # type: ignore[arg-type]
    done = programs.run(programs.SECRET, *command, stdin=REQUESTS.get(command[0], b""), env=environment, cwd=directory)
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
    assert b"internal error" not in done.stderr


@pytest.mark.parametrize("field", ["file_path", "template"])
def test_a_binding_that_is_not_text_is_a_malformed_reply(
    listener: Listener, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    binding = {"fetch_as": "file", "file_path": "a", "file_mode": "0600", "template": "{{value}}", field: "\ud800"}
    monkeypatch.setitem(REPLIES, "bindings", {"bindings": {"A": [binding]}})
    monkeypatch.setitem(REPLIES, "get", {"value": "v", "ttl_seconds": 1, "generation": 1})
    listener.escapes = True
    environment = {"HOME": str(directory), "REMO_BROKER_SOCKET": os.fspath(listener.server_address)}  # type: ignore[arg-type]
    done = programs.run(programs.SECRET, "render", env=environment, cwd=directory)
    assert "malformed reply" in programs.refused(done, 1)


@pytest.mark.parametrize("content", ["\n" * 500_000, " " * 500_000, "TOKEN" * 100_000, "_auth=" + " " * 500_000])
def test_a_file_that_takes_long_to_search(directory: pathlib.Path, content: str) -> None:
    """The search ends long before the test's timeout."""
    (directory / ".remo").mkdir()
    (directory / ".remo/manifest.toml").write_text(content[:65_536])
    for name in (".env", ".npmrc", ".pypirc"):
        (directory / name).write_text(content)
    for command in (["doctor"], ["render", "--remove"]):
        programs.run(programs.SECRET, *command, env={"HOME": str(directory)}, cwd=directory)


def test_doctor_shows_names_of_a_hostile_repository_as_text(directory: pathlib.Path) -> None:
    (directory / f".env.{HOSTILE.replace('/', '')}").write_text("A_TOKEN=x\n")
    done = programs.run(programs.SECRET, "doctor", env={"HOME": str(directory)}, cwd=directory)
    assert b".env.99" in done.stdout
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
