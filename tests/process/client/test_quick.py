"""The client of `remo-secret get` behaves like the ordinary one, and imports next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker import client
from remo_broker.client import quick
from tests.process.client.conftest import SECRETS
from tests.support.machine import REPOSITORY
from tests.support.scripted_peer import NEXT, ScriptedPeer, Slowly, Step

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from tests.process.client.conftest import Serve
    from tests.support.broker import Broker

PONG = b'{"ok":true,"broker_version":"2.0.0","protocol_version":2,"project":"x"}\n'


def value(**fields: object) -> bytes:
    return PONG + json.dumps({"ok": True, "value": "v", "ttl_seconds": 1, "generation": 1} | fields).encode() + b"\n"


def info(**fields: object) -> bytes:
    return (
        PONG
        + json.dumps({"ok": True, "project": "x", "allowlist": ["A"], "schema_version": 1} | fields).encode()
        + b"\n"
    )


def bound(tables: object) -> bytes:
    return PONG + json.dumps({"ok": True, "bindings": tables}).encode() + b"\n"


def outcome(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except client.ClientError as error:
        return type(error), error.message, error.hint


REPLIES = [
    b"",
    PONG,
    PONG[:20],
    PONG + b'{"ok":true',
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"[]\n",
    b"{}\n",
    b"\xff\xfe\n",
    b"[" * 60_000 + b"\n",
    PONG.replace(b":2,", b":3,"),
    PONG.replace(b":2,", b":true,"),
    PONG.replace(b'"protocol_version":2,', b""),
    b'{"ok":false,"code":"peer_unexpected","message":"m"}\n',
    PONG + b'{"ok":false,"code":"denied","reason":"not_in_manifest","message":"m"}\n',
    PONG + b'{"ok":false,"code":"rate_limited","message":"m","retry_after_seconds":3}\n',
    PONG + b'{"ok":false,"code":"new","message":"m"}\n',
    PONG + b'{"ok":true} x\n',
    PONG + b' {"ok":true}\n',
    PONG + b'{"ok":NaN}\n',
    PONG + b"x" * 70_000 + b"\n",
    PONG + b"x" * 70_000,
    value(),
    value(value='\u00e9\u20ac \\ " \n \U0001f600'),
    value(value=""),
    value(value=1),
    value(value=None),
    value(ttl_seconds="1"),
    value(ttl_seconds=True),
    value(generation=None),
    value(expires_at="2026-05-31T02:30:00Z"),
    value(expires_at=7),
    value(more=[1]),
    value(value_b64="AA=="),
    value().replace(b'"value": "v"', b'"value_b64": "3q2+7w=="'),
    value().replace(b'"value": "v"', b'"value_b64": "!"'),
    value().replace(b'"value": "v"', b'"value_b64": "QQ=="'),
    value().replace(b'"value": "v"', b'"value_b64": "QR=="'),
    value().replace(b'"value": "v"', b'"value_b64": "QQ=A"'),
    value().replace(b'"value": "v"', b'"value_b64": "Q==="'),
    value().replace(b'"v"', b'"\\ud800"'),
    value().replace(b'"value": "v"', b'"value": "v", "value": "w"'),
    value().replace(b'"v"', b'"' + b"x" * 60_000 + b'"'),
    info(),
    info(allowlist=[]),
    info(allowlist=["A=B"]),
    info(allowlist=[1]),
    info(allowlist="A"),
    info(project="../x"),
    info(hosts={"h": "A"}),
    info(hosts={"h": "A B"}),
    info(hosts=[]),
    info(schema_version=None),
    info(manifest_path=1),
    info(manifest_sha256=["x"]),
    info(manifest_path="/p/.remo/manifest.toml", manifest_sha256="ab"),
    bound({}),
    bound({"A": [{"env_var": "B"}, {}], "C": []}),
    bound({"A": {}}),
    bound({"A": [[]]}),
    bound({"A": None}),
    bound([]),
    bound(None),
]


@pytest.mark.parametrize("reply", REPLIES, ids=range(len(REPLIES)))
def test_it_gives_the_results_of_the_ordinary_client(serve: Serve, reply: bytes) -> None:
    path = str(serve(reply).path)

    def get(opened: quick.QuickClient | client.Client) -> object:
        with opened:
            secret = opened.get("TOKEN")
        return secret.reveal_bytes(), secret.binary, secret.ttl_seconds, secret.generation, secret.expires_at

    def names(opened: quick.QuickClient | client.Client) -> object:
        with opened:
            found = opened.info()
        return found.project, found.allowlist, found.hosts or {}, found.manifest_path, found.manifest_sha256

    def tables(opened: quick.QuickClient | client.Client) -> object:
        with opened:
            return opened.bindings().bindings

    with quick.open_project(path) as opened:
        assert isinstance(opened, quick.QuickClient)
    for ask in (get, names, tables):
        expected = outcome(lambda ask=ask: ask(client.Client(path)))  # type: ignore[misc]
        assert outcome(lambda ask=ask: ask(quick.open_project(path))) == expected  # type: ignore[misc]


@pytest.mark.parametrize("half", ["greeting", "reply"])
def test_the_timeout_applies_to_a_slow_reply(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """Even if bytes keep arriving."""
    monkeypatch.setattr(quick, "REPLY_SECONDS", 0.5)
    slow = Slowly((PONG if half == "greeting" else b"") + value()[len(PONG) :], pause=0.05)
    script: list[Step] = [NEXT, slow] if half == "greeting" else [NEXT, PONG, slow]
    with ScriptedPeer(directory / "p.sock", script), quick.open_project(str(directory / "p.sock")) as asked:
        assert isinstance(asked, quick.QuickClient)
        with pytest.raises(client.TimedOut):
            asked.get("A")


def test_with_a_broker(broker: Broker) -> None:
    with quick.open_project(str(broker.project())) as project:
        assert project.get("GITHUB_TOKEN").reveal() == SECRETS["GITHUB_TOKEN"]
        assert project.get("KEYSTORE").reveal_bytes() == b"\xde\xad\xbe\xef"
        assert "MISSING" in project.info().allowlist
        assert project.bindings().bindings == {}
        with pytest.raises(client.NotFound):
            project.get("MISSING")
        with pytest.raises(client.Denied):
            project.get("no name")
        assert project.get("GITHUB_TOKEN").reveal() == SECRETS["GITHUB_TOKEN"]


HEAVY = {"asyncio", "contextlib", "dataclasses", "enum", "functools", "json", "re", "signal", "socket", "typing"}
MOST_MODULES_OF_EXEC = 35
# What each of these needs besides `os` and modules that the interpreter itself loads.
MOST_MODULES = {"get": 24, "git-credential": 26, "docker-credential": 27}


@pytest.mark.parametrize("command", MOST_MODULES)
def test_modules_that_a_command_loads(broker: Broker, command: str) -> None:
    """Every module delays each `git fetch`. `json` alone takes as long as all of this."""
    words = {
        "get": ["get", "GITHUB_TOKEN"],
        "git-credential": ["git-credential", "get"],
        "docker-credential": ["docker-credential", "get"],
    }[command]
    code = (
        "import os, sys\n"
        "before = set(sys.modules)\n"
        f"sys.path.append({str(REPOSITORY)!r})\n"
        "from remo_broker.secret.main import main\n"
        f"status = main(['--socket', {str(broker.project())!r}, *{words!r}])\n"
        "sys.stdout.flush()\n"
        "print(status, *sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    stdin = "protocol=https\nhost=github.com\n\n" if command == "git-credential" else "ghcr.io"
    argv = [sys.executable, "-ISc", code]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True)
    status, *modules = done.stderr.split()
    assert (status, str(SECRETS["GITHUB_TOKEN"]) in done.stdout) == ("0", True), done
    assert not HEAVY & set(modules)
    assert len(modules) <= MOST_MODULES[command], modules


def test_modules_that_exec_loads(broker: Broker) -> None:
    """For a project without file bindings and explicit variables."""
    code = (
        "import os, sys\n"
        "before = set(sys.modules)\n"
        "def execve(*_):\n"
        "    print(*sorted(set(sys.modules) - before), flush=True)\n"
        "    os._exit(0)\n"
        "os.execve = execve\n"
        f"sys.path.append({str(REPOSITORY)!r})\n"
        "from remo_broker.secret.main import main\n"
        f"main(['--socket', {str(broker.project())!r}, 'exec', '--only=GITHUB_TOKEN', '--', 'true'])\n"
    )
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "remo_broker.secret.programs" in modules, done
    assert not HEAVY & set(modules)
    assert len(modules) <= MOST_MODULES_OF_EXEC, modules
