"""`remo-secret setup`: what it writes, and that it removes all of it again."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import REPOSITORY
from tests.support.programs import require_ascii_path

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup


def test_setup_and_remove_leave_the_file_as_it_was(place: ToolSetup) -> None:
    before = {
        ".aws/config": "[default]\nregion = eu-west-1\n[profile x]\nregion = us-east-1\n",
        ".npmrc": "fund=false\n",
        ".cargo/config.toml": "[net]\noffline = true\n",
        ".config/uv/uv.toml": "[pip]\nstrict = true\n",
        ".gitconfig": "[user]\n\tname = me\n",
        ".docker/config.json": '{\n\t"auths": {}\n}\n',
    }
    place.write(before)
    tools = ["aws", "npm", "cargo", "uv", "git", "docker"]
    shown = place.remo("setup", "--dry-run", *tools)
    assert shown.returncode == 0, shown.stderr
    assert "+credential_process = remo-secret aws-credentials aws" in shown.stdout
    assert {name: (place.home / name).read_text() for name in before} == before
    for _ in range(2):
        assert place.remo("setup", *tools).returncode == 0
    after = {name: (place.home / name).read_text() for name in before}
    assert after[".aws/config"].index("credential_process") < after[".aws/config"].index("[profile x]")
    assert after[".aws/config"].count("credential_process") == 1
    assert after[".config/uv/uv.toml"].index("keyring-provider") < after[".config/uv/uv.toml"].index("[pip]")
    helpers = place.run("git", "config", "--global", "--get-all", "credential.helper").stdout
    assert helpers == "\n!remo-secret git-credential\n"
    assert "zq" not in "".join(after.values())
    assert place.remo("setup", "--remove", *tools).returncode == 0
    restored = {name: (place.home / name).read_text() for name in before}
    restored[".gitconfig"] = restored[".gitconfig"].replace("[credential]\n", "")
    assert restored == before
    assert not (place.home / ".local/bin/docker-credential-remo").exists()


def test_setup_does_not_override_existing_settings(place: ToolSetup) -> None:
    (place.home / ".aws").mkdir()
    (place.home / ".aws/config").write_text("[default]\ncredential_process = other\n")
    done = place.remo("setup", "aws")
    assert done.returncode == 1
    assert "credential_process" in done.stderr


def test_git_after_setup(place: ToolSetup) -> None:
    """Another helper in the system's configuration must not get the token to store."""
    system = place.home / "system"
    system.write_text("[credential]\n\thelper = store\n")
    assert place.remo("setup", "git").returncode == 0
    env = {"GIT_CONFIG_SYSTEM": str(system), "GIT_CONFIG_NOSYSTEM": "0", "GIT_TERMINAL_PROMPT": "0"}
    filled = place.run("git", "credential", "fill", stdin="url=https://github.com/x\n\n", **env).stdout
    assert "password=zqgithub" in filled
    place.run("git", "credential", "approve", stdin=filled, **env)
    assert not (place.home / ".git-credentials").exists()


def test_recipes_of_the_manual_are_what_setup_writes(place: ToolSetup) -> None:
    """Each setting in remo-secret-tools(7) for a tool that `setup` knows, word for word."""
    done = place.remo("setup", "--dry-run", "git", "aws", "docker", "pip", "uv", "npm", "cargo")
    assert done.returncode == 0, done.stderr
    added = [line[1:].strip() for line in done.stdout.splitlines() if line.startswith("+")]
    page = (REPOSITORY / "man/remo-secret-tools.7").read_text()
    for line in added:
        if "=" in line and not line.startswith(("#", "++", "helper")):
            assert line in page, line
    for helper in ("''", "'!remo-secret git-credential'"):
        assert f"credential.helper {helper}" in page


def test_pip_and_uv_share_a_program(place: ToolSetup) -> None:
    program = place.home / ".local/bin/keyring"
    assert place.remo("setup", "pip", "uv").returncode == 0
    assert place.remo("setup", "--remove", "pip").returncode == 0
    assert program.exists(), "uv runs it"
    assert place.remo("setup", "--remove", "uv").returncode == 0
    assert place.files() == {}


@pytest.mark.parametrize("how", ["the broker is down", "another project", "no project"])
def test_registries_that_were_set_up_stay(place: ToolSetup, how: str) -> None:
    """A second run of `setup` removes none, whatever the broker replies."""
    path = place.home / ".docker/config.json"
    assert place.remo("setup", "docker").returncode == 0
    before = json.loads(path.read_text())["credHelpers"]
    assert before["registry.example.org:5000"] == "remo"
    env = {}
    if how == "the broker is down":
        place.broker.stop()
    elif how == "another project":
        env["REMO_BROKER_SOCKET"] = str(place.broker.project("other"))
    else:
        env["REMO_BROKER_SOCKET"] = str(place.home / "none.sock")
    assert place.remo("setup", "docker", **env).returncode == 0
    assert json.loads(path.read_text())["credHelpers"] == before
    assert place.remo("setup", "--remove", "docker", **env).returncode == 0
    assert not path.exists()


def test_another_program_of_the_same_name(place: ToolSetup) -> None:
    """It matters only if the tool would find it first."""
    other = place.bin / "keyring"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    done = place.remo("setup", "pip", PATH=f"{place.bin}:{place.home}/.local/bin:{os.environ['PATH']}")
    assert (done.returncode, place.files()) == (1, {})
    assert str(other) in done.stderr
    assert place.remo("setup", "pip").returncode == 0
    own = place.home / ".local/bin/keyring"
    own.write_text("mine")
    assert place.remo("setup", "--remove", "pip").returncode == 0
    assert own.read_text() == "mine"


def test_one_tool_that_fails_does_not_stop_the_others(place: ToolSetup) -> None:
    (place.home / ".npmrc").write_text("//registry.npmjs.org/:_authToken=mine\n")
    done = place.remo("setup", "npm", "aws")
    assert done.returncode == 1
    assert "_authToken" in done.stderr
    assert "credential_process" in (place.home / ".aws/config").read_text()


@pytest.mark.takes_devices
def test_a_device_is_not_replaced(place: ToolSetup) -> None:
    """As with PIP_CONFIG_FILE=/dev/null, which tells pip to read no file."""
    null = place.home / "null"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    done = place.remo("setup", "pip", PIP_CONFIG_FILE=str(null))
    assert done.returncode == 1
    assert stat.S_ISCHR(null.stat().st_mode)
    assert place.files() == {}, "nor is anything else changed"


def test_tokens_in_the_users_files_are_not_shown(place: ToolSetup) -> None:
    """Neither those next to an added line, nor those in reformatted lines."""
    files = {
        ".npmrc": "//a.example/:_authToken=zqOld\n",
        ".aws/config": "[default]\naws_secret_access_key = zqOld\n",
        ".docker/config.json": '{"auths": {"a.example": {"auth": "zqOld", "identitytoken": "zqOld"}}}',
    }
    place.write(files)
    for options in (["--dry-run"], [], ["--remove"]):
        done = place.remo("setup", *options, "npm", "aws", "docker")
        assert done.returncode == 0, done.stderr
        assert "_authToken=${NPM_TOKEN" in done.stdout
        assert "zqOld" not in done.stdout + done.stderr
    assert all("zqOld" in place.files()[name] for name in files)


def test_text_of_any_language_stays_in_every_locale(place: ToolSetup) -> None:
    require_ascii_path()
    before = "[user]\n\tname = J\u00f6rg \u20ac\n".encode() + b"\temail = \xff\n"
    (place.home / ".gitconfig").write_bytes(before)
    for locale in ("C", "en_US.iso88591"):
        env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = place.remo("setup", "git", **env)
        assert done.returncode == 0, done.stderr
        assert (place.home / ".gitconfig").read_bytes().startswith(before)
        assert place.remo("setup", "--remove", "git", **env).returncode == 0
        assert (place.home / ".gitconfig").read_bytes() == before


def test_a_line_of_the_users_below_our_mark_stays(place: ToolSetup) -> None:
    """The user has removed the added line and left the comment."""
    path = place.home / ".aws/config"
    assert place.remo("setup", "aws").returncode == 0
    lines = [line for line in path.read_text().splitlines() if "credential_process" not in line]
    path.write_text("\n".join([*lines, "region = eu-west-1", ""]))
    assert place.remo("setup", "--remove", "aws").returncode == 0
    assert path.read_text() == "[default]\nregion = eu-west-1\n"


@pytest.mark.takes_mounts
def test_a_file_that_is_mounted_is_left_alone(place: ToolSetup) -> None:
    """Dev container tools mount a user's dot files, which cannot be replaced by a rename."""
    path = place.home / ".npmrc"
    path.write_text("fund=false\n")
    done = place.run("unshare", "-m", "sh", "-c", f"mount --bind {path} {path} && exec remo-secret setup npm")
    assert done.returncode == 1
    assert f"npm: {path}: " in done.stderr
    assert "Hint: " in done.stderr
    assert place.files() == {".npmrc": "fund=false\n"}, "and no other file is left"


def test_a_fifo_is_not_waited_for(place: ToolSetup) -> None:
    """Some secret managers make .env a FIFO."""
    for name in (".npmrc", ".env"):
        os.mkfifo(place.home / name)
    done = place.remo("setup", "npm")
    assert (done.returncode, place.files()) == (1, {})
    assert "is not a file" in done.stderr
    assert place.remo("doctor").returncode in (0, 1)
