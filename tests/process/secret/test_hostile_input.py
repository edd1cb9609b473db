"""`remo-secret` shows input from a hostile listener or repository as escaped text."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.hostile_peer import ANSWERS, COMMANDS, HOSTILE, OBEYED, REPLIES, REQUESTS, Listener

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def listener(directory: pathlib.Path) -> Iterator[Listener]:
    with Listener(str(directory / "hostile.sock")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def environment(listener: Listener, directory: pathlib.Path, memory: pathlib.Path) -> dict[str, str]:
    return {
        "HOME": str(directory),
        "XDG_RUNTIME_DIR": str(memory),  # in /dev/shm, other tests would meet what is rendered
        "REMO_BROKER_SOCKET": os.fspath(listener.server_address),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_control_characters(
    listener: Listener, directory: pathlib.Path, environment: dict[str, str], command: list[str], fails: bool
) -> None:
    listener.fails = fails
    done = programs.run(programs.SECRET, *command, stdin=REQUESTS.get(command[0], b""), env=environment, cwd=directory)
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
    assert b"internal error" not in done.stderr


FIELDS = ("username", "password", "token", "aws_access_key_id", "aws_secret_access_key")


@pytest.mark.parametrize("value", [HOSTILE, json.dumps(dict.fromkeys(FIELDS, HOSTILE))], ids=["string", "bundle"])
@pytest.mark.parametrize("command", ANSWERS, ids=" ".join)
def test_no_value_that_a_terminal_obeys_is_written_to_one(
    listener: Listener,
    directory: pathlib.Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    value: str,
) -> None:
    """Whatever the command is for: any can be run by hand."""
    monkeypatch.setitem(REPLIES, "get", {"value": value, "ttl_seconds": 1, "generation": 1})
    listener.escapes = True
    shown = programs.answer_on_terminal(
        programs.command(programs.SECRET, *command), REQUESTS.get(command[0], b""), environment, directory
    )
    assert not [one for one in OBEYED if one in shown]


def test_no_path_that_a_terminal_obeys_is_written_to_one(
    listener: Listener, directory: pathlib.Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = {"fetch_as": "file", "file_path": "~/\u202eright", "file_mode": "0600", "template": "{{value}}"}
    monkeypatch.setitem(REPLIES, "bindings", {"bindings": {"A": [binding]}})
    monkeypatch.setitem(REPLIES, "get", {"value": "v", "ttl_seconds": 1, "generation": 1})
    shown = programs.answer_on_terminal(programs.command(programs.SECRET, "render"), b"", environment, directory)
    assert b"\\u202eright" in shown
    assert not [one for one in OBEYED if one in shown]


@pytest.mark.parametrize("field", ["file_path", "template"])
def test_a_binding_that_is_not_text_is_a_malformed_reply(
    listener: Listener,
    directory: pathlib.Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    field: str,
) -> None:
    binding = {"fetch_as": "file", "file_path": "a", "file_mode": "0600", "template": "{{value}}", field: "\ud800"}
    monkeypatch.setitem(REPLIES, "bindings", {"bindings": {"A": [binding]}})
    monkeypatch.setitem(REPLIES, "get", {"value": "v", "ttl_seconds": 1, "generation": 1})
    listener.escapes = True
    done = programs.run(programs.SECRET, "render", env=environment, cwd=directory)
    assert "malformed reply" in programs.refused(done, 1)


@pytest.mark.parametrize("content", ["\n" * 500_000, " " * 500_000, "TOKEN" * 100_000, "_auth=" + " " * 500_000])
def test_a_file_that_takes_long_to_search(directory: pathlib.Path, content: str) -> None:
    """The search takes a fraction of a second."""
    (directory / ".remo").mkdir()
    (directory / ".remo/manifest.toml").write_text(content[:65_536])
    for name in (".env", ".npmrc", ".pypirc"):
        (directory / name).write_text(content)
    for command in (["doctor"], ["render", "--remove"]):
        done = programs.run(
            programs.SECRET, *command, env={"HOME": str(directory)}, cwd=directory, processor_seconds=10
        )
        assert done.returncode >= 0, "killed"


def test_doctor_shows_names_of_a_hostile_repository_as_text(directory: pathlib.Path) -> None:
    (directory / f".env.{HOSTILE.replace('/', '')}").write_text("A_TOKEN=x\n")
    done = programs.run(programs.SECRET, "doctor", env={"HOME": str(directory)}, cwd=directory)
    assert b".env.99" in done.stdout
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
