"""Where the manifest's bindings put secrets: variables, and files in the home, the project, or a
tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from remo_broker.secret import tmpfs
from tests.process.secret.conftest import MANIFEST, everything_below, variables
from tests.support import programs
from tests.support.machine import unavailable
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.process.secret.conftest import Workspace


def test_render_without_files(project: Workspace) -> None:
    project.register('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\n')
    done = project.run("render")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_manifest_by_name(project: Workspace) -> None:
    for path in (str(project.manifest), str(project.path), os.path.relpath(project.path, project.home)):
        done = project.run("exec", "--manifest", path, "env", "-0", cwd=project.home)
        assert variables(done)[b"GH_TOKEN"] == b"zqTokenzq"
    assert ".devcontainer/remo-broker.toml" in refused(project.run("render", "--manifest", "/usr"), 1)
    assert "No such file" in refused(project.run("render", "--manifest", "/nowhere"), 1)


SEVERAL = """
schema_version = 1
project = "myrepo"
[secrets.aws]
env = { AWS_ACCESS_KEY_ID = "id", AWS_SECRET = "key" }
[[secrets.TOKEN]]
env_var = "A"
[[secrets.TOKEN]]
fetch_as = "file"
file_path = "one"
file_mode = "0600"
template = "{{value}}"
[[secrets.TOKEN]]
fetch_as = "file"
file_path = "two"
file_mode = "0600"
template = "\ufeff{{ value | base64 }} {{value|shell}}"
[secrets.npm]
optional = true
"""


def test_several_bindings_and_fields(project: Workspace) -> None:
    project.register(SEVERAL)
    found = variables(project.run("exec", "env", "-0"))
    assert (found[b"AWS_ACCESS_KEY_ID"], found[b"AWS_SECRET"], found[b"A"]) == (b"zqIdzq", b"zq{{id}}zq", b"zqTokenzq")
    assert (project.home / "one").read_text() == "zqTokenzq"
    assert (project.home / "two").read_text() == "enFUb2tlbnpx 'zqTokenzq'"
    project.run("render", "--remove", "--only=TOKEN")
    assert everything_below(project.home) == []
    project.broker.push({"aws": "not a bundle", "TOKEN": "x", "npm": "x"})
    assert "is not a bundle" in refused(project.run("exec", "true"), 1)


def test_an_optional_secret_may_be_missing(project: Workspace) -> None:
    project.register(SEVERAL)
    project.broker.push({"aws": {"id": "1", "key": "2"}, "TOKEN": "x"})
    done = project.run("exec", "env", "-0")
    assert b"NPM" not in variables(done)
    assert done.stderr.count(b"npm") == 1
    project.broker.push({"TOKEN": "x"})
    assert "aws: " in refused(project.run("exec", "true"), 4)


IN_PROJECT = """
schema_version = 1
project = "myrepo"
[secrets.TOKEN]
fetch_as = "file"
file_path = "secrets/token"
file_mode = "0600"
template = "{{value}}"
base = "project"
"""


def test_a_file_in_the_project_unless_git_would_track_it(project: Workspace) -> None:
    if shutil.which("git") is None:
        unavailable("git is not installed")
    project.register(IN_PROJECT)
    assert project.run("render").returncode == 0
    assert (project.path / "secrets/token").read_text() == "zqTokenzq"
    project.run("render", "--remove")
    subprocess.run(["git", "init", "-q", project.path], check=True, env=programs.environment(project.environment))
    assert "tracked by git" in refused(project.run("render"), 1)
    (project.path / ".gitignore").write_text("/secrets/\n")
    assert project.run("render").returncode == 0
    assert "is not here" in refused(project.run("render", cwd=project.home), 1)


def test_no_link_of_the_repository_takes_a_file_out_of_the_project(project: Workspace) -> None:
    project.register(IN_PROJECT)
    (project.path / "secrets").symlink_to(project.home)
    assert "because of a link" in refused(project.run("render"), 1)
    assert not list(project.home.iterdir())
    (project.path / "inside").mkdir()
    (project.path / "secrets").unlink()
    (project.path / "secrets").symlink_to("inside")
    assert project.run("render").returncode == 0
    assert (project.path / "inside/token").read_text() == "zqTokenzq"


@pytest.mark.parametrize(
    "settings",
    [
        {"core.fsmonitor": "touch {}"},
        {
            "core.repositoryformatversion": "1",
            "extensions.partialClone": "origin",
            "remote.origin.url": "ext::sh -c touch% {}",
            "protocol.ext.allow": "always",
            "core.sparseCheckout": "true",
        },
    ],
    ids=["monitor", "fetch"],
)
def test_git_runs_no_program_that_the_repository_names(project: Workspace, settings: dict[str, str]) -> None:
    if shutil.which("git") is None:
        unavailable("git is not installed")
    project.register(IN_PROJECT)
    run = project.home / "run"

    def git(*words: str) -> None:
        argv = ["git", "-C", str(project.path), *words]
        subprocess.run(argv, check=True, env=programs.environment(project.environment))

    git("init", "-q")
    # Its content is missing and would have to be fetched.
    git("update-index", "--add", "--cacheinfo", f"100644,{'12' * 20},.gitignore")
    git("update-index", "--skip-worktree", ".gitignore")
    for key, value in settings.items():
        git("config", key, value.format(run))
    project.run("render")
    assert not run.exists()


def test_a_copy_is_a_file_on_a_tmpfs(project: Workspace) -> None:
    target = project.memory / "docker/config.json"
    text = IN_PROJECT.replace('base = "project"', 'place = "copy"')
    project.register(text.replace("secrets/token", str(target)))
    assert project.run("render").returncode == 0
    assert target.read_text() == "zqTokenzq"
    assert target.stat().st_mode & 0o7777 == 0o600
    assert not target.is_symlink()
    target.unlink()
    target.write_text("rewritten by its program")
    project.broker.push({"TOKEN": "new"})
    assert project.run("render").returncode == 0
    assert target.read_text() == "new"
    project.run("render", "--remove")
    assert not target.exists()
    target.write_text("mine")
    assert "was not rendered" in refused(project.run("render"), 1)
    if tmpfs.is_in_memory(str(project.path)):
        return  # as /tmp may be
    project.register(text)
    assert "is not on a tmpfs" in refused(project.run("render"), 1)


def test_two_secrets_with_the_same_place(project: Workspace) -> None:
    project.register(MANIFEST + '[secrets.KEY2]\nenv_var = "NPM"\n')
    project.register(MANIFEST.replace("[secrets.npm]", '[secrets.npm]\nenv_var = "GH_TOKEN"'))
    assert "same variable GH_TOKEN" in refused(project.run("exec", "true"), 1)
    project.register(MANIFEST.replace("keys/app.key", "~/.aws/../.aws/credentials"))
    assert "same file" in refused(project.run("exec", "true"), 1)
