"""What a hostile listener and a hostile repository make `remo-secret` show: text, and nothing that a
terminal obeys."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import programs

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

# An escape sequence, its one-byte form, and what turns text around.
HOSTILE = "99\x1b]0;title\x07\x9b31m\u202eright"
OBEYED = [one.encode() for one in ("\x1b", "\x07", "\x9b", "\u202e")]
REPLIES: dict[str, dict[str, Any]] = {
    "ping": {"broker_version": HOSTILE, "protocol_version": 2, "project": "app"},
    "info": {
        "project": "app",
        "allowlist": ["A"],
        "schema_version": 1,
        "manifest_path": HOSTILE,
        "manifest_sha256": HOSTILE,
        "hosts": {HOSTILE: "A", "registry.example": "A"},
    },
    "ready": {"ready": True, "generation": 1},
    "bindings": {"bindings": {"A": [{"env_var": "A"}]}},
    "peek": {
        **dict.fromkeys(("decision", "outcome", "reason", "project", "name"), HOSTILE),
        **dict.fromkeys(("generation", "ttl_seconds"), 1),
    },
    "get": {"value": "v", "ttl_seconds": 1, "generation": 1, "expires_at": HOSTILE},
}
COMMANDS = [
    *(["doctor"], ["list"], ["check"], ["env"], ["exec", "--", "true"], ["render"], ["get", "A"]),
    *(["setup", "git", "docker", "--dry-run"], ["docker-credential", "get"], ["docker-credential", "list"]),
    *(["git-credential", "get"], ["keyring", "get", "https://registry.example", "x"], ["aws-credentials", "A"]),
]
REQUESTS = {"git-credential": b"protocol=https\nhost=registry.example\n\n", "docker-credential": b"registry.example"}


class _Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    fails = escapes = False


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            reply = {"ok": True, **REPLIES.get(json.loads(line)["op"], {})}
            if self.server.fails:  # type: ignore[attr-defined]
                reply = {"ok": False, "code": HOSTILE, "reason": HOSTILE, "message": HOSTILE}
            self.wfile.write(json.dumps(reply, ensure_ascii=self.server.escapes).encode() + b"\n")  # type: ignore[attr-defined]


@pytest.fixture
def listener(directory: pathlib.Path) -> Iterator[_Listener]:
    with _Listener(str(directory / "hostile.sock"), _Connection) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_what_a_terminal_obeys(
    listener: _Listener, directory: pathlib.Path, command: list[str], fails: bool
) -> None:
    listener.fails = fails
    environment = {"HOME": str(directory), "REMO_BROKER_SOCKET": os.fspath(listener.server_address)}  # type: ignore[arg-type]
    done = programs.run(programs.SECRET, *command, stdin=REQUESTS.get(command[0], b""), env=environment, cwd=directory)
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
    assert b"internal error" not in done.stderr


@pytest.mark.parametrize("field", ["file_path", "template"])
def test_a_binding_that_is_no_text_is_a_malformed_reply(
    listener: _Listener, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, field: str
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
    """It ends, long before the tests' own time is over."""
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
