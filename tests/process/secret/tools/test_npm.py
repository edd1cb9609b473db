"""npm, with a token in a variable that `exec` sets."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.conftest import tool
from tests.process.secret.tools.servers import Answer, RecordingServer
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process.secret.tools.conftest import ToolSetup


@pytest.fixture
def npm() -> tuple[int, ...]:
    """The version of the host's npm."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed: ./run test installs it")
    version = subprocess.run(["npm", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in version.split("-")[0].split("."))


@pytest.fixture
def registry() -> Iterator[RecordingServer]:
    answer = Answer(200, b'{"username": "me"}', Content_Type="application/json")
    with contextlib.closing(RecordingServer(lambda _: answer)) as server:
        yield server


def configure(place: ToolSetup, secret: str, registry: RecordingServer) -> str:
    """Run `setup` for this server instead of npm's own; return its output."""
    done = place.remo("setup", f"npm={secret}")
    assert done.returncode == 0, done.stderr
    npmrc = place.home / ".npmrc"
    npmrc.write_text(npmrc.read_text().replace("registry.npmjs.org", registry.host))
    return done.stdout


@pytest.mark.usefixtures("npm")
def test_the_recipe_for_npm(place: ToolSetup, registry: RecordingServer, other: RecordingServer) -> None:
    configure(place, "KUBE_TOKEN", registry)
    for server in (registry, other):
        exec_npm = ("exec", "--only=KUBE_TOKEN", "--", "npm", "whoami", f"--registry=http://{server.host}/")
        done = place.remo(*exec_npm, "--loglevel=silly")
        assert done.stdout == ("me\n" if server is registry else ""), done.stderr
        assert "zqkube" not in done.stderr
    assert registry.credentials == {"Bearer zqkube"}
    assert other.credentials == set(), "another registry gets nothing"
    place.assert_nowhere_else("zqkube", registry, other)


def test_npm_outside_exec(place: ToolSetup, registry: RecordingServer, npm: tuple[int, ...]) -> None:
    """It sends no credential: a registry refuses a wrong one, even for public packages. `setup`
    says what an older npm sends instead."""
    said = configure(place, "NPM_TOKEN", registry)
    place.run("npm", "whoami", f"--registry=http://{registry.host}/")
    if npm >= (11, 6):
        assert registry.credentials == set()
        assert "no token" in said
    else:
        assert registry.credentials == {"Bearer ${NPM_TOKEN}"}
        assert "the text ${NPM_TOKEN}" in said


@pytest.mark.parametrize(
    ("version", "line"), [("11.5.2", "${NPM_TOKEN}"), ("11.6.0", "${NPM_TOKEN?}"), ("12.0.0-pre.1", "${NPM_TOKEN?}")]
)
def test_the_line_depends_on_npms_version(place: ToolSetup, version: str, line: str) -> None:
    """A line of the other form is replaced."""
    npm = place.bin / "npm"
    for known in ("10.0.0", "11.9.0", version):
        npm.write_text(f"#!/bin/sh\necho {known}\n")
        npm.chmod(0o755)
        assert place.remo("setup", "npm").returncode == 0
    settings = (place.home / ".npmrc").read_text().splitlines()[1:]
    assert settings == [f"//registry.npmjs.org/:_authToken={line}"]
    assert f"{settings[0]}\n" in "".join(place.page("npm"))
    assert place.remo("setup", "--remove", "npm").returncode == 0
    assert place.files() == {}


def test_the_recipe_for_pnpm(place: ToolSetup) -> None:
    pnpm = tool("pnpm", REPOSITORY / ".cache/pnpm/node_modules/.bin")
    setting, script = place.page("pnpm")
    helper = place.bin / "npm-token"
    helper.write_text(script.replace("NPM_TOKEN", "KUBE_TOKEN"))
    helper.chmod(0o755)
    (place.home / "package.json").write_text('{"name": "x", "version": "1.0.0"}')
    with contextlib.closing(RecordingServer(lambda _: Answer(404))) as server:
        setting = setting.replace("registry.npmjs.org", server.host).replace(
            "/home/me/.local/bin/npm-token", str(helper)
        )
        (place.home / ".npmrc").write_text(setting)
        done = place.run(pnpm, "add", "zq-no-such-package", f"--registry=http://{server.host}/", "--fetch-retries=0")
        assert done.returncode != 0, "the registry has no package"
        assert server.credentials == {"Bearer zqkube"}, done.stdout + done.stderr
        place.assert_nowhere_else("zqkube", server)


def test_setup_names_the_remaining_step(place: ToolSetup) -> None:
    """npm has no helper: it reads the token from a variable, which the user must set."""
    assert "remo-secret exec --only=NPM_TOKEN -- npm" in place.remo("setup", "npm").stdout
    assert place.remo("setup", "npm").stdout == ""
