"""Files of `exec` and `render`: which ones they replace, which they leave alone, and where they
are."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.program import Problem
from remo_broker.secret import links, tmpfs
from remo_broker.secret.project_directory import check_inside
from remo_broker.secret.rendering import File, Rendering, remove
from tests.process.secret.conftest import KEY
from tests.support.broker import NOBODY
from tests.support.machine import unavailable
from tests.support.programs import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process.secret.conftest import Workspace


def test_a_real_file_is_not_replaced(project: Workspace) -> None:
    (project.home / ".aws").mkdir()
    credentials = project.home / ".aws/credentials"
    credentials.write_text("mine")
    line = refused(project.run("render"), 1)
    assert "was not rendered by remo-secret\nHint: move it away" in line
    assert credentials.read_text() == "mine"
    assert not (project.home / "keys").exists(), "nothing else is written either"
    credentials.unlink()
    credentials.symlink_to("/etc/passwd")
    refused(project.run("render"), 1)
    assert os.readlink(credentials) == "/etc/passwd"
    credentials.unlink()
    (project.home / "keys").mkdir()
    (project.home / "keys/app.key").write_text("mine")
    refused(project.run("exec", "true"), 1)
    assert not os.path.lexists(credentials), "nor is what comes before it in the manifest"


def test_rendering_again_replaces_what_was_rendered(project: Workspace) -> None:
    project.run("render")
    project.broker.push({"aws": {"id": "new", "key": "k"}}, KEY="AA==")
    assert project.run("render").returncode == 0
    assert "id=new" in (project.home / ".aws/credentials").read_text()


def test_a_reader_never_sees_a_partial_file(project: Workspace) -> None:
    """The link and the file are each put in place in one step; an open file keeps its old
    content."""
    project.run("render")
    with (project.home / "keys/app.key").open("rb") as before:
        project.broker.push({"aws": {"id": "new", "key": "k"}}, KEY="AA==")
        project.run("render")
        assert before.read() == KEY


def test_remove(project: Workspace) -> None:
    project.run("render")
    assert project.run("render", "--remove").returncode == 0
    assert not os.path.lexists(project.home / ".aws/credentials")
    assert not os.listdir(project.rendered)
    assert project.run("render", "--remove").returncode == 0, "twice does no harm"
    credentials = project.home / ".aws/credentials"
    credentials.write_text("mine")
    project.run("render", "--remove")
    assert credentials.read_text() == "mine"


@pytest.mark.takes_root("running as another user")
def test_a_directory_that_is_not_ours_is_not_used(project: Workspace) -> None:
    """Any user may write to /dev/shm: another one may have created our directory before, to read
    our files."""
    outer = project.rendered.parent
    outer.mkdir()
    os.chown(outer, 65534, 65534)
    assert "belongs to another user" in refused(project.run("render"), 1)
    outer.rmdir()
    (project.memory / "elsewhere").mkdir()
    outer.symlink_to(project.memory / "elsewhere")
    refused(project.run("render"), 1)
    assert not list((project.memory / "elsewhere").iterdir())
    outer.unlink()
    outer.mkdir()
    outer.chmod(0o777)
    assert "others may write" in refused(project.run("render"), 1)


@pytest.mark.takes_root("running as another user")
def test_a_squatted_directory_is_not_waited_for(project: Workspace) -> None:
    """In /dev/shm, any user can create this user's usual directory first."""
    project.memory.chmod(0o1777)
    squatted = project.rendered.parent
    squatted.mkdir()
    os.chown(squatted, NOBODY, NOBODY)
    for _ in range(2):
        assert project.run("render").returncode == 0
    assert (project.home / "keys/app.key").read_bytes() == KEY
    others = [path for path in project.memory.iterdir() if path != squatted]
    assert len(others) == 1, "the second run uses the first one's"
    assert others[0].stat().st_mode & 0o7777 == 0o700
    assert not list(squatted.iterdir())
    project.run("render", "--remove")
    assert not (project.home / "keys/app.key").exists()


@pytest.mark.takes_root("running as another user")
def test_a_link_that_another_user_left(project: Workspace) -> None:
    """For example after `sudo remo-secret render`: that user's file may be in use. Once it is gone,
    the link may be replaced."""
    theirs = project.memory / "remo-secret-1234/myrepo/KEY"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("x")
    link = project.home / "keys/app.key"
    link.parent.mkdir()
    link.symlink_to(theirs)
    line = refused(project.run("render"), 1)
    assert "rendered by user 1234" in line
    assert f"rm {link}" in line
    theirs.unlink()
    assert project.run("render").returncode == 0
    assert link.read_bytes() == KEY


@pytest.fixture
def on_disk() -> Iterator[str]:
    """A directory on a disk; those below TMPDIR may be in memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True).stdout
        if kind.strip() in ("tmpfs", "ramfs"):
            unavailable("/var/tmp is not on a disk here")
        yield directory


def test_nothing_is_rendered_on_a_disk(on_disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime directory on a disk is passed over; with nothing else, that is an error."""
    assert not tmpfs.is_in_memory(on_disk)
    assert not tmpfs.is_in_memory("/nowhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", on_disk)
    assert tmpfs.find_memory() in tmpfs.candidates()[1:]
    monkeypatch.setattr(tmpfs, "CANDIDATES", (on_disk,))
    with pytest.raises(Problem, match="is a writable tmpfs of yours or root's"):
        tmpfs.find_memory()


@pytest.fixture
def app(directory: pathlib.Path, memory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A project whose code can put something else in the place of its directory `settings`."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory))
    (directory / "app/settings").mkdir(parents=True)
    (directory / "elsewhere").mkdir()
    return directory / "app"


@pytest.mark.parametrize("when", ["after the check", "after it was resolved"])
def test_no_link_put_there_meanwhile_leads_a_file_out_of_the_project(
    app: pathlib.Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    target = str(app / "settings/.env")
    inside = check_inside(str(app), target)
    file = File(target, b"value", 0o600, inside=inside)
    (app / "settings").rmdir()
    (app / "settings").symlink_to(app.parent / "elsewhere")
    if when == "after it was resolved":
        monkeypatch.setattr(links, "real_path", lambda path: path)
    with pytest.raises(Problem, match=r"outside the project|Not a directory"):
        Rendering("app", {"A": file})
    assert not os.listdir(app.parent / "elsewhere")


def test_a_copy_is_neither_written_to_a_disk_nor_removed_from_one(
    app: pathlib.Path, memory: pathlib.Path, on_disk: str
) -> None:
    """Wherever a link leads by now: what is there is the user's own."""
    (memory / "app").mkdir()
    place = memory / "app/.env"
    file = File(str(place), b"value", 0o600, copy=True)
    Rendering("app", {"A": file}).close()
    assert place.read_bytes() == b"value"
    place.unlink()
    (memory / "app").rmdir()
    (memory / "app").symlink_to(on_disk)
    own = pathlib.Path(on_disk) / ".env"
    with pytest.raises(OSError, match="not supported"):
        links.write_copy(str(place), b"value", 0o600)
    assert not os.listdir(on_disk)
    own.write_text("mine")
    remove("app", None)
    assert own.read_text() == "mine"
