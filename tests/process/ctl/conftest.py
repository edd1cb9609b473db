"""`remo-brokerctl`, run against a broker of the test's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import programs
from tests.support.late import patiently

if TYPE_CHECKING:
    import pathlib
    import subprocess

    from tests.conftest import StartBroker
    from tests.support.broker import Broker


class CommandLine:
    """An operator who runs commands against a broker."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def run(
        self,
        *arguments: str | pathlib.Path,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: pathlib.Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        where = f"--socket={self.broker.admin}"
        return patiently(lambda: programs.run(programs.BROKERCTL, where, *arguments, stdin=stdin, env=env, cwd=cwd))

    def says(self, *arguments: str | pathlib.Path, stdin: bytes = b"", status: int = 0) -> str:
        """Its standard output; standard error must be empty."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (status, b""), (done.stdout, done.stderr)
        return done.stdout.decode()

    def json(self, *arguments: str | pathlib.Path, stdin: bytes = b"", status: int = 0) -> Any:
        text = self.says("--json=short", *arguments, stdin=stdin, status=status)
        assert text.count("\n") == 1
        return json.loads(text)

    def on_terminal(self, *arguments: str, env: dict[str, str] | None = None, keys: bytes = b"") -> programs.Terminal:
        argv = (programs.BROKERCTL, f"--socket={self.broker.admin}", *arguments)
        return patiently(lambda: programs.on_terminal(*argv, env=env, keys=keys))


def write_project(directory: pathlib.Path, name: str, *secrets: str, extra: str = "") -> pathlib.Path:
    """A project's directory with a manifest that lists `secrets`."""
    path = directory / name
    (path / ".devcontainer").mkdir(parents=True, exist_ok=True)
    (path / ".devcontainer/remo-broker.toml").write_text(
        f'schema_version = 1\n[project]\nname = "{name}"\n[allowlist]\nsecrets = {json.dumps(secrets)}\n{extra}'
    )
    return path


@pytest.fixture
def operator(start_broker: StartBroker) -> CommandLine:
    """An operator of a broker without projects or secrets."""
    return CommandLine(start_broker())
