"""A project with a manifest and a home directory, and `remo-secret` run in it."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.broker import Broker, registration

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.conftest import StartBroker

MANIFEST = r"""
schema_version = 1
project = "myrepo"
[secrets.TOKEN]
env_var = "GH_TOKEN"
[secrets.npm]
[secrets.aws]
fetch_as = "file"
file_path = "~/.aws/credentials"
file_mode = "0600"
template = "[default]\nid={{id}}\nkey = {{ key }}\n"
[secrets.KEY]
fetch_as = "file"
file_path = "keys/app.key"
file_mode = "0440"
template = "{{value}}"
"""
SECRETS = {"TOKEN": "zqTokenzq", "npm": "zqNpm\nzq=", "aws": {"id": "zqIdzq", "key": "zq{{id}}zq"}}
KEY = bytes(range(256))
KEY_BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/w=="


class Workspace:
    """Where `remo-secret` runs: the project's directory, a home, a tmpfs to render on, and the
    broker's socket."""

    def __init__(self, broker: Broker, directory: pathlib.Path, memory: pathlib.Path) -> None:
        self.broker = broker
        self.path = directory / "myrepo"
        self.home = directory / "home"
        self.memory = memory
        self.home.mkdir()
        (self.path / ".remo").mkdir(parents=True)
        self.manifest = self.path / ".remo/manifest.toml"
        self.manifest.write_text(MANIFEST)

    def register(self, manifest: str) -> None:
        """Write another manifest, and reload it as an operator."""
        self.manifest.write_text(manifest)
        assert self.broker.ask({"op": "reload", "name": "myrepo"})["ok"]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "REMO_BROKER_SOCKET": str(self.broker.project()),
            "XDG_RUNTIME_DIR": str(self.memory),
        }

    def run(
        self, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: pathlib.Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = self.environment | (env or {})
        return programs.run(programs.SECRET, *arguments, stdin=stdin, env=environment, cwd=cwd or self.path)

    def on_terminal(self, *arguments: str) -> programs.Terminal:
        return programs.on_terminal(programs.SECRET, *arguments, env=self.environment, cwd=self.path)

    def push_all(self) -> None:
        self.broker.push(SECRETS, KEY=KEY_BASE64)

    @property
    def rendered(self) -> pathlib.Path:
        return self.memory / f"remo-secret-{os.geteuid()}" / "myrepo"


def variables(done: subprocess.CompletedProcess[bytes]) -> dict[bytes, bytes]:
    """The variables that `env -0` printed."""
    assert done.returncode == 0, done.stderr
    return dict(line.split(b"=", 1) for line in done.stdout.split(b"\0") if line)


def everything_below(directory: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def memory() -> Iterator[pathlib.Path]:
    """A directory on a tmpfs, as a login session has one."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="remo-test-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def empty(start_broker: StartBroker, directory: pathlib.Path, memory: pathlib.Path) -> Workspace:
    """The project at a broker without secrets."""
    path = str(directory / "myrepo")
    broker = start_broker(projects=[registration("myrepo", project_path=path, manifest=MANIFEST)])
    return Workspace(broker, directory, memory)


@pytest.fixture
def project(empty: Workspace) -> Workspace:
    """The project with its secrets pushed."""
    empty.push_all()
    return empty
