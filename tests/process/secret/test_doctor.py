"""`remo-secret doctor` finds each planted fault, and prints no value."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import remo_broker
from tests.support import programs
from tests.support.broker import listen

if TYPE_CHECKING:
    from tests.process.secret.conftest import Workspace

TOKEN = "zqTokenInAFilezq"
FILES = {
    ".netrc": f"machine github.com login x password {TOKEN}\n",
    ".git-credentials": f"https://x:{TOKEN}@github.com\n",
    ".npmrc": f"//registry.npmjs.org/:_authToken={TOKEN}\n",
    ".docker/config.json": f'{{"auths": {{"ghcr.io": {{"auth": "{TOKEN}"}}}}}}',
    ".aws/credentials": f"[default]\naws_secret_access_key = {TOKEN}\n",
    ".pypirc": f"[pypi]\npassword = {TOKEN}\n",
    ".cargo/credentials.toml": f'[registry]\ntoken = "{TOKEN}"\n',
    ".env": f"A=1\nGITHUB_TOKEN={TOKEN}\n",
    ".env.production": f"DATABASE_URL=postgres://me:{TOKEN}@db.example.org/x\n",
    ".env.local": f"  export github_token = '{TOKEN}'\n",
    ".config/git/credentials": f"https://x:{TOKEN}@github.com\n",
    ".git/config": f'[remote "origin"]\n\turl = https://x:{TOKEN}@github.com/x\n',
    ".config/gh/hosts.yml": f"github.com:\n    oauth_token: {TOKEN}\n",
    ".config/pip/pip.conf": f"[global]\nindex-url = https://x:{TOKEN}@pypi.example.org/simple\n",
    ".config/containers/auth.json": f'{{"auths": {{"ghcr.io": {{"auth": "{TOKEN}"}}}}}}',
    ".kube/config": f"users:\n- name: x\n  user:\n    token: {TOKEN}\n",
    ".pgpass": f"db.example.org:5432:*:me:{TOKEN}\n",
    ".cargo/credentials": f'[registry]\ntoken = "{TOKEN}"\n',
}


def doctor(project: Workspace, **env: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"GIT_CONFIG_NOSYSTEM": "1", **env}
    return project.run("doctor", env=environment, cwd=project.home)


def test_no_findings(project: Workspace) -> None:
    (project.home / ".npmrc").write_text(
        "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n//b.example/:_authToken=${NPM_TOKEN?}\n"
    )
    (project.home / ".env").write_text(
        "GITHUB_TOKEN=\nAPI_KEY=$OTHER\nA_TOKEN=\"\"\nB_TOKEN='' # later\nDB=postgres://me:$PW@db/x\n"
    )
    (project.home / ".env.example").write_text("GITHUB_TOKEN=put-yours-here\n")
    project.run("render")
    done = doctor(project)
    assert (done.returncode, done.stdout) == (0, b"No findings.\n"), done
    assert not [one for one in project.broker.records("fetch") if one["REMO_SECRET"] == "TOKEN"]


@pytest.mark.parametrize("name", FILES)
def test_a_token_in_a_file(project: Workspace, name: str) -> None:
    path = project.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILES[name])
    done = doctor(project)
    assert done.returncode == 1
    assert str(path).encode() in done.stdout
    assert done.stdout.count(b"\n") == 2, "one finding, and its next step"
    assert TOKEN.encode() not in done.stdout + done.stderr


def test_a_forwarded_agent(project: Workspace) -> None:
    done = doctor(project, SSH_AUTH_SOCK="/tmp/agent")
    assert done.returncode == 1
    assert b"SSH_AUTH_SOCK" in done.stdout


@pytest.mark.parametrize(
    ("helpers", "found"),
    [
        (["store"], True),
        (["/x/vscode-helper", "!remo-secret git-credential"], True),
        (["store", "", "!remo-secret git-credential"], False),
        (["", "!remo-secret git-credential", "store"], True),
        (["/x/\udcff", "!remo-secret git-credential"], True),
    ],
)
def test_another_helper_of_git(project: Workspace, helpers: list[str], found: bool) -> None:
    for helper in helpers:
        subprocess.run(
            ["git", "config", "--global", "--add", "credential.helper", helper],
            env=programs.environment(project.environment),
            check=True,
        )
    done = doctor(project)
    assert done.returncode == int(found), done.stdout
    assert (b"remo-secret setup git" in done.stdout) == found


def test_another_helper_of_git_for_one_server(project: Workspace) -> None:
    """As written by `gh auth setup-git`, beside ours."""
    for key, helper in (
        ("credential.helper", ""),
        ("credential.helper", "!remo-secret git-credential"),
        ("credential.https://github.com.helper", ""),
        ("credential.https://github.com.helper", "!gh auth git-credential"),
        ("credential.https://no-secret-is-for.example.helper", "other"),
    ):
        argv = ["git", "config", "--global", "--add", key, helper]
        subprocess.run(argv, env=programs.environment(project.environment), check=True)
    done = doctor(project)
    assert done.returncode == 1
    assert b"helper for https://github.com" in done.stdout
    assert done.stdout.count(b"\n") == 2


def test_another_helper_of_docker(project: Workspace) -> None:
    """As set by dev container tools on attach."""
    (project.home / ".docker").mkdir()
    (project.home / ".docker/config.json").write_text('{"credsStore": "dev-containers-zq", "auths": {"ghcr.io": {}}}')
    done = doctor(project)
    assert done.returncode == 1
    assert b"credsStore" in done.stdout


def test_a_dead_socket(project: Workspace) -> None:
    path = project.home / "dead.sock"
    listen(path).close()
    done = doctor(project, REMO_BROKER_SOCKET=str(path))
    assert done.returncode == 1
    assert b"nothing listens" in done.stdout


def test_an_old_client(project: Workspace) -> None:
    code = (
        "import sys, remo_broker\n"
        "remo_broker.__version__ = '1.9.0'\n"
        "from remo_broker.secret.main import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    argv = [programs.command("x")[0], "-c", code]
    environment = programs.environment(project.environment | {"GIT_CONFIG_NOSYSTEM": "1"})
    done = subprocess.run(argv, env=environment, cwd=project.home, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "version 1.9.0" in done.stdout
    assert remo_broker.__version__ in done.stdout


def test_a_manifest_that_was_edited(project: Workspace) -> None:
    with open(project.manifest, "a") as file:
        file.write("# edited\n")
    done = project.run("doctor", env={"GIT_CONFIG_NOSYSTEM": "1"})
    assert done.returncode == 1
    assert b"reload myrepo" in done.stdout
    assert os.path.basename(project.manifest).encode() in done.stdout
