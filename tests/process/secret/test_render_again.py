"""`remo-secret render` after an earlier run: one that was killed, had another manifest, or was for
another project."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.secret import tmpfs
from remo_broker.secret.rendering import File, Rendering, remove
from tests.process.secret.conftest import KEY, MANIFEST, everything_below
from tests.support import programs
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.process.secret.conftest import Workspace

# The program, killed by the kernel before its Nth step.
KILLED_AT_STEP = """
import os, signal, sys
left = int(sys.argv[1])
def hook(event, arguments):
    global left
    if event in ("os.mkdir", "os.symlink", "os.chmod", "os.rename", "os.remove"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
from remo_broker.secret.main import main
sys.addaudithook(hook)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("again", [["render"], ["render", "--remove"]], ids=" ".join)
def test_killed_at_any_step(project: Workspace, again: list[str], tmp_path: pathlib.Path) -> None:
    """The next run finds everything left behind: SIGKILL arrives before each call that changes a
    directory."""
    assert project.run("render").returncode == 0
    (project.home / ".aws/credentials").unlink()
    (project.home / ".aws/credentials").symlink_to(f"/run/user/1/{tmpfs.own_name()}/myrepo/aws")
    before = {place: tmp_path / place.name for place in (project.home, project.memory)}
    for place, copy in before.items():
        shutil.copytree(place, copy, symlinks=True)
    project.register(MANIFEST.replace("keys/app.key", "new/app.key"))
    steps = 0
    while True:
        steps += 1
        for place, copy in before.items():
            shutil.rmtree(place)
            shutil.copytree(copy, place, symlinks=True)
        argv = [sys.executable, "-P", "-c", KILLED_AT_STEP, str(steps), "render"]
        killed = subprocess.run(
            argv, env=programs.environment(project.environment), cwd=project.path, capture_output=True, check=False
        )
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        done = project.run(*again)
        assert (done.returncode, done.stderr) == (0, b"")
        links = [path for path in everything_below(project.home) if (project.home / path).is_symlink()]
        if "--remove" in again:
            assert (steps, os.listdir(project.rendered)) == (steps, [])
            assert set(links) <= {".aws/credentials"}, "the one that led elsewhere"
        else:
            assert (steps, sorted(os.listdir(project.rendered))) == (steps, ["KEY", "KEY.place", "aws", "aws.place"])
            assert links == [".aws/credentials", "new/app.key"]
            assert (project.home / "new/app.key").read_bytes() == KEY
            assert (project.home / ".aws/credentials").read_text().startswith("[default]")
    assert steps > 10, "it has not been killed where it matters"


def test_a_run_that_was_killed(project: Workspace) -> None:
    project.run("render")
    (project.rendered / ".aws").write_text("half a secret")
    (project.rendered / ".aws").chmod(0o400)
    (project.rendered / ".old.place").symlink_to("/nowhere")
    credentials = project.home / ".aws/credentials"
    credentials.unlink()
    credentials.symlink_to(f"/run/user/1/{tmpfs.own_name()}/myrepo/aws")
    temporary = credentials.with_name(f"credentials.{tmpfs.own_name()}")
    temporary.symlink_to(project.rendered / "aws")
    assert project.run("render").returncode == 0
    assert sorted(os.listdir(project.rendered)) == ["KEY", "KEY.place", "aws", "aws.place"]
    assert os.listdir(project.home / ".aws") == ["credentials"]
    assert credentials.read_text().startswith("[default]")


def test_two_at_a_time(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other, and does not remove its staged files as leftovers of a killed
    run."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(project.memory))
    folder = tmpfs.make_folder("myrepo")
    folder.stage("aws", b"of the first", 0o600, "/nowhere")
    argv = programs.command(programs.SECRET, "render")
    environment = programs.environment(project.environment)
    with subprocess.Popen(argv, env=environment, cwd=project.path, stdout=subprocess.DEVNULL) as second:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.7)
            folder.commit("aws")
        finally:
            folder.close()
        assert second.wait(60) == 0
    assert (project.home / ".aws/credentials").read_text().startswith("[default]")


def test_a_file_path_that_was_changed(project: Workspace) -> None:
    project.run("render")
    project.register(MANIFEST.replace("keys/app.key", "keys/new.key"))
    project.run("render")
    assert os.listdir(project.home / "keys") == ["new.key"]
    assert (project.home / "keys/new.key").read_bytes() == KEY


@pytest.mark.takes_mounts
def test_an_old_place_that_cannot_be_removed(project: Workspace) -> None:
    project.run("render")
    keys = project.home / "keys"
    subprocess.run(["mount", "--bind", keys, keys], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", keys], check=True)
        project.register(MANIFEST.replace("keys/app.key", "new.key"))
        assert f"{keys}/app.key: Read-only file system; nothing was" in refused(project.run("render"), 1)
        assert not os.path.lexists(project.home / "new.key")
    finally:
        subprocess.run(["umount", keys], check=True)


def test_another_runtime_directory(
    memory: pathlib.Path, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login session has $XDG_RUNTIME_DIR, a shell in a container does not; its link is recognised
    as ours nevertheless."""
    for name in ("login", "shell"):
        (memory / name).mkdir(mode=0o700)
    monkeypatch.setattr(tmpfs, "CANDIDATES", (str(memory / "shell"), str(memory / "login")))
    monkeypatch.setattr(tmpfs, "is_safe", lambda place: place.startswith(str(memory)))
    target = directory / "key"
    for runtime, content in (("login", b"1"), ("shell", b"2"), ("login", b"3")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory / runtime))
        Rendering("p", {"KEY": File(str(target), content, 0o600)}).close()
        assert target.read_bytes() == content
        assert os.readlink(target) == f"{memory}/{runtime}/{tmpfs.own_name()}/p/KEY"
        assert len(list(memory.rglob("KEY"))) == 1, "none is left on the other tmpfs"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    remove("p", None)
    assert not os.path.lexists(target)
    assert not list(memory.rglob("KEY*"))


def test_two_secrets_that_swap_places(
    memory: pathlib.Path, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory))
    here, there = str(directory / "here"), str(directory / "there")
    for first, second in ((here, there), (there, here), (here, there)):
        Rendering("p", {"A": File(first, b"a", 0o600), "B": File(second, b"b", 0o600)}).close()
        assert (pathlib.Path(first).read_bytes(), pathlib.Path(second).read_bytes()) == (b"a", b"b")
    Rendering("p", {"C": File(here, b"c", 0o600)}).close()
    assert sorted(os.listdir(memory / tmpfs.own_name() / "p")) == ["B", "B.place", "C", "C.place"]


def test_another_project_has_the_place(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of that project would get this project's credentials."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(project.memory))
    credentials = project.home / ".aws/credentials"
    Rendering("other", {"aws": File(str(credentials), b"of the other", 0o600)}).close()
    line = refused(project.run("render"), 1)
    assert f"{credentials} was rendered for other\nHint: run 'remo-secret render --remove' in that project's" in line
    assert credentials.read_bytes() == b"of the other"
    (project.rendered.parent / "other/aws").unlink()
    assert project.run("render").returncode == 0, "a link to what is gone, as after a restart, is in nobody's way"
    assert credentials.read_text().startswith("[default]")
