"""`remo-secret git-credential`, run by the host's git and a newer one for a server that requires a
password."""

from __future__ import annotations

import base64
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.conftest import NEWER, tool
from tests.process.secret.tools.servers import Answer, Asked, Certificate, RecordingServer, unauthorized
from tests.support.machine import unavailable

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup

FORGE = "Basic " + base64.b64encode(b"alice:zqforge").decode()


def advertise(asked: Asked) -> Answer:
    """The refs of a repository, for clients with a password."""
    if not asked.credential:
        return unauthorized()
    lines = ["# service=git-upload-pack\n", "", f"{'a' * 40} refs/heads/main\0 agent=x\n", ""]
    body = "".join(f"{len(line) + 4:04x}{line}" if line else "0000" for line in lines)
    return Answer(200, body.encode(), Content_Type="application/x-git-upload-pack-advertisement")


@pytest.mark.parametrize("which", ["host", "newer"])
def test_a_repository_that_requires_a_password(
    place: ToolSetup, forge: RecordingServer, other: RecordingServer, certificate: Certificate, which: str
) -> None:
    if shutil.which("git") is None:
        unavailable("git is not installed: ./run test installs it")
    git = "git" if which == "host" else tool("git", NEWER)
    system = place.home.parent / "system"
    system.write_text("[credential]\n\thelper = store\n")
    env = {
        "GIT_CONFIG_SYSTEM": str(system),
        "GIT_CONFIG_NOSYSTEM": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSL_CAINFO": str(certificate.path),
    }
    forge.answer = advertise
    for _ in range(2):
        assert place.remo("setup", "git").returncode == 0
    assert "zq" not in "".join(place.files().values())
    done = place.run(git, "ls-remote", f"https://{forge.host}/x.git", **env)
    assert "refs/heads/main" in done.stdout, done.stderr
    assert forge.credentials == {FORGE}
    assert [one["REMO_SECRET"] for one in place.broker.records("fetch")] == ["FORGE"]
    done = place.run(git, "ls-remote", f"http://{other.host}/x.git", **env)
    assert done.returncode != 0
    assert other.credentials == set(), "another server gets nothing"
    assert not (place.home / ".git-credentials").exists(), "and no other helper stores it"
    place.assert_nowhere_else("zqforge", forge, other)
    assert place.remo("setup", "--remove", "git").returncode == 0
    assert place.files() == {}
    forge.asked.clear()
    assert place.run(git, "ls-remote", f"https://{forge.host}/x.git", **env).returncode != 0
    assert forge.credentials == set()


def test_a_newer_git_tells_other_helpers_not_to_store(
    place: ToolSetup, forge: RecordingServer, certificate: Certificate
) -> None:
    """By `ephemeral`, which not every helper respects: git's own `store` does not, so the list of
    helpers is reset."""
    git = tool("git", NEWER)
    forge.answer = advertise
    script = '!f() { echo "operation=$1" >>seen; cat >>seen; }; f'
    for helper in ("!remo-secret git-credential", script):
        assert place.run(git, "config", "--global", "--add", "credential.helper", helper).returncode == 0
    done = place.run(git, "ls-remote", f"https://{forge.host}/x.git", GIT_SSL_CAINFO=str(certificate.path))
    assert "refs/heads/main" in done.stdout, done.stderr
    seen = (place.home / "seen").read_text()
    assert "ephemeral=1" in seen.partition("operation=store\n")[2]


def test_a_refusal_names_the_secret(place: ToolSetup) -> None:
    if shutil.which("git") is None:
        unavailable("git is not installed: ./run test installs it")
    assert place.remo("setup", "git").returncode == 0
    done = place.run("git", "credential", "fill", stdin="url=https://denied.example.org/x\n\n", GIT_TERMINAL_PROMPT="0")
    assert done.returncode != 0
    assert "LATER, for denied.example.org: " in done.stderr
    assert [one["REMO_SECRET"] for one in place.broker.records("fetch")] == ["LATER"]


def test_removing_setup_restores_the_users_settings(place: ToolSetup) -> None:
    """For example a list of helpers that the user had reset, and one for a single host."""
    before = '[credential]\n\thelper = \n\thelper = cache\n[credential "https://x.example"]\n\thelper = other\n'
    (place.home / ".gitconfig").write_text(before)
    for _ in range(2):
        assert place.remo("setup", "git").returncode == 0
    helpers = place.run("git", "config", "--global", "--get-all", "credential.helper").stdout
    assert helpers == "\ncache\n\n!remo-secret git-credential\n"
    assert place.remo("setup", "--remove", "git").returncode == 0
    assert (place.home / ".gitconfig").read_text() == before
