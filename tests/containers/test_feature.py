"""The dev container Feature: read by the reference tool, and its install.sh run in a Debian that
has nothing."""

from __future__ import annotations

import json
import pathlib
import platform
import shutil
import subprocess

import pytest

from remo_broker import __version__
from tests.support import roots
from tests.support.devcontainers import install_devcontainer
from tests.support.machine import REPOSITORY

COMMAND_SECONDS = 180

AS_USER = "setpriv --reuid=1000 --regid=1000 --clear-groups"


@pytest.fixture(scope="session")
def devcontainer() -> list[str]:
    return [str(install_devcontainer())]


def test_the_reference_tool_packs_it(devcontainer: list[str], feature: pathlib.Path, tmp_path: pathlib.Path) -> None:
    argv = [
        *devcontainer,
        "features",
        "package",
        str(feature),
        "--output-folder",
        str(tmp_path / "out"),
        "--force-clean-output-folder",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    packed = tmp_path / "out/devcontainer-feature-remo-broker.tgz"
    names = subprocess.run(["tar", "-tf", packed], capture_output=True, text=True, check=True).stdout.split()
    wanted = {"devcontainer-feature.json", "install.sh", "entrypoint.sh", "remo-secret.pyz"}
    assert wanted | {f"remo-secret.{platform.machine()}"} <= {name.removeprefix("./") for name in names}


def test_the_reference_tool_reads_it(devcontainer: list[str], feature: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "myrepo/.devcontainer"
    shutil.copytree(feature, folder / "remo-broker")
    settings = {"image": "debian:12", "features": {"./remo-broker": {"wait": "3"}}}
    (folder / "devcontainer.json").write_text(json.dumps(settings))
    # It only checks whether there is a container; no engine is installed here.
    argv = [*devcontainer, "read-configuration", "--workspace-folder", str(folder.parent), "--docker-path", "/bin/true"]
    argv += ["--include-features-configuration"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["featuresConfiguration"]["featureSets"][0]["features"][0]
    assert (found["id"], found["version"]) == ("remo-broker", __version__)
    assert found["value"] == {"wait": "3"}
    assert found["entrypoint"] == "/usr/local/share/remo-broker/entrypoint.sh"


def test_the_version_is_that_of_the_project() -> None:
    assert json.loads((REPOSITORY / "feature/devcontainer-feature.json").read_text())["version"] == __version__


def test_without_python_the_static_client_is_enough(feature: pathlib.Path) -> None:
    script = f"""
        ! command -v python3
        WAIT=1 sh /tmp/remo-broker/install.sh
        test ! -e /usr/local/lib/remo-broker/remo-secret.pyz
        {AS_USER} remo-secret list || echo "list ended with $?"
        {AS_USER} /usr/local/share/remo-broker/entrypoint.sh true || echo "start ended with $?"
        echo 0 >/usr/local/share/remo-broker/wait
        {AS_USER} /usr/local/share/remo-broker/entrypoint.sh echo started
    """
    done = roots.run(roots.minbase(), script, {feature: "/tmp/remo-broker"})
    assert done.returncode == 0, done.stderr
    assert "installed remo-secret, static\n" in done.stdout
    assert "list ended with 5" in done.stdout
    assert "start ended with 1" in done.stdout
    assert done.stdout.endswith("started\n")
    assert "remo-broker: the container stops" in done.stderr


def test_without_a_static_client_python_is_installed(feature: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "remo-broker"
    shutil.copytree(feature, other)
    (other / f"remo-secret.{platform.machine()}").unlink()
    script = f"""
        sh /tmp/remo-broker/install.sh
        {AS_USER} remo-secret --version
        {AS_USER} remo-secret list || echo "list ended with $?"
    """
    done = roots.run(roots.minbase(), script, {other: "/tmp/remo-broker"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "installed remo-secret, with Python\n" in done.stdout
    assert f"remo-secret {__version__} (protocol 2)" in done.stdout
    assert "list ended with 5" in done.stdout


def test_with_both_the_static_client_hands_over(feature: pathlib.Path) -> None:
    script = f"PYTHON=true sh /tmp/remo-broker/install.sh >/dev/null; {AS_USER} remo-secret --version"
    done = roots.run(roots.with_tools(), script, {feature: "/tmp/remo-broker"})
    assert done.stdout.endswith(f"remo-secret {__version__} (protocol 2)\n"), done.stderr[-2000:]


def test_it_replaces_a_link_and_its_files_are_for_every_user(feature: pathlib.Path) -> None:
    script = f"""
        mkdir -p /usr/local/bin /usr/local/lib/remo-broker
        ln -s /usr/local/lib/remo-broker/remo-secret.pyz /usr/local/bin/remo-secret
        umask 077
        WAIT=1 sh /tmp/remo-broker/install.sh
        test ! -L /usr/local/bin/remo-secret
        test ! -e /usr/local/lib/remo-broker/remo-secret.pyz
        {AS_USER} /usr/local/share/remo-broker/entrypoint.sh true || echo "start ended with $?"
    """
    done = roots.run(roots.minbase(), script, {feature: "/tmp/remo-broker"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("start ended with 1\n")


def test_setup_for_root_needs_no_su(feature: pathlib.Path) -> None:
    script = """
        rm "$(command -v su)"
        SETUP=git sh /tmp/remo-broker/install.sh
        git config --global --get-all credential.helper
    """
    done = roots.run(roots.with_tools(), script, {feature: "/tmp/remo-broker"})
    assert done.returncode == 0, done.stderr
    assert "remo-secret git-credential" in done.stdout.splitlines()[-1]


def test_setup_configures_the_tools_of_the_containers_user(feature: pathlib.Path) -> None:
    script = """
        SETUP=git _REMOTE_USER=dev sh /tmp/remo-broker/install.sh
        su dev -c 'git config --get-all credential.helper'
        stat -c %U /home/dev/.gitconfig
    """
    done = roots.run(roots.with_tools(), script, {feature: "/tmp/remo-broker"})
    assert done.returncode == 0, done.stderr
    *_, helper, owner = done.stdout.splitlines()
    assert "remo-secret git-credential" in helper
    assert owner == "dev"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("WAIT=soon", "wait is 'soon'"),
        ("WAIT=86401", "wait is '86401'"),
        ("WAIT=99999999999999999999", "wait is '9"),
        ("WAIT=", ""),
        ("SETUP='git;id'", "setup is 'git;id'"),
        ("SETUP='$(id)'", "setup is"),
    ],
)
def test_options_that_it_refuses(feature: pathlib.Path, options: str, says: str) -> None:
    done = roots.run(roots.minbase(), f"{options} sh /tmp/remo-broker/install.sh", {feature: "/tmp/remo-broker"})
    assert (done.returncode != 0) == bool(says)
    assert says in done.stderr
