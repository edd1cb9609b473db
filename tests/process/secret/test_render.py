"""`remo-secret render`: writes all files or none, and removes them all whatever has changed
since."""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.program import Problem
from remo_broker.secret import tmpfs
from remo_broker.secret.links import file_behind, target_of
from remo_broker.secret.rendering import File, Rendering
from tests.process.secret.conftest import KEY, MANIFEST, everything_below
from tests.support import programs
from tests.support.broker import NOBODY
from tests.support.machine import unavailable
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.process.secret.conftest import Workspace

# Longer than a name may be: all checks pass, and then the link cannot be created.
TOO_LONG = "keys/" + "x" * 300


def shell(project: Workspace, script: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A shell script with `"$@"` as the program and its arguments."""
    argv = ["sh", "-c", script, "sh", *programs.command(programs.SECRET, *arguments)]
    environment = programs.environment(project.environment)
    return subprocess.run(argv, env=environment, cwd=project.path, capture_output=True, timeout=60, check=False)


# --- all or none


def test_a_link_that_cannot_be_made(project: Workspace) -> None:
    """It is the second one; the first already exists then."""
    project.register(MANIFEST.replace("keys/app.key", TOO_LONG))
    assert "File name too long; nothing was started" in refused(project.run("render"), 1)
    assert everything_below(project.home) == []
    assert os.listdir(project.rendered) == []
    project.register(MANIFEST)
    assert project.run("render").returncode == 0
    project.register(MANIFEST.replace("keys/app.key", TOO_LONG))
    refused(project.run("exec", "true"), 1)
    assert (project.home / ".aws/credentials").read_text().startswith("[default]"), "what was there before stays"


def test_a_file_that_cannot_be_written(project: Workspace) -> None:
    project.register(MANIFEST.replace('template = "{{value}}"', f'template = "{"x" * 4096}"'))
    line = refused(shell(project, 'ulimit -f 1; exec "$@"', "render"), 1)
    assert f"{project.rendered}/KEY: File too large" in line
    assert everything_below(project.home) == []
    assert os.listdir(project.rendered) == []


@pytest.mark.takes_mounts
def test_a_full_tmpfs(project: Workspace) -> None:
    size = resource.getpagesize()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", project.memory], check=True)
    try:
        line = refused(project.run("render"), 1)
        assert f"{project.rendered}/KEY: No space left on device; nothing was started" in line
        assert everything_below(project.home) == []
        assert os.listdir(project.rendered) == []
    finally:
        subprocess.run(["umount", project.memory], check=True)


@pytest.mark.parametrize("path", ["keys/app.key", "keys/deeper/app.key"])
def test_a_file_in_place_of_a_directory(project: Workspace, path: str) -> None:
    project.register(MANIFEST.replace("keys/app.key", path))
    (project.home / "keys").write_text("mine")
    assert f"{project.home}/keys is not a directory\nHint: move it away" in refused(project.run("render"), 1)
    assert everything_below(project.home) == ["keys"]
    assert not project.rendered.exists()


@pytest.mark.takes_root("running as another user")
def test_a_place_that_may_not_be_written_to(directory: pathlib.Path) -> None:
    code = f"from remo_broker.secret.links import check_place; check_place({str(directory / 'x/y')!r}, 'p', copy=False, ours=False)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=programs.environment(), user=NOBODY, capture_output=True, text=True, check=False)
    assert f"you may not write to {directory}" in done.stderr


def test_one_file_below_another(project: Workspace) -> None:
    project.register(MANIFEST.replace("keys/app.key", "~/.aws/credentials/key"))
    assert "cannot both be files\nHint: use another file_path for KEY" in refused(project.run("render"), 1)
    assert everything_below(project.home) == []


@pytest.mark.parametrize("path", ["/", "keys/"])
def test_a_directory_in_place_of_a_file(project: Workspace, path: str) -> None:
    (project.home / "keys").mkdir()
    project.register(MANIFEST.replace("keys/app.key", path))
    assert "is a directory\nHint: use another file_path" in refused(project.run("render"), 1)
    assert everything_below(project.home) == ["keys"]


@pytest.mark.parametrize("path", ["other/credentials", "/{home}/.aws/credentials", "~/no/../.aws/credentials"])
def test_two_names_of_one_place(project: Workspace, path: str) -> None:
    (project.home / "other").symlink_to(project.home / ".aws")
    (project.home / ".aws").mkdir()
    project.register(MANIFEST.replace("keys/app.key", path.format(home=project.home)))
    line = refused(project.run("render"), 1)
    assert f"KEY and aws have the same file {project.home}/.aws/credentials\nHint: use another" in line
    assert everything_below(project.home) == [".aws", "other"]


@pytest.mark.parametrize("mode", ["4755", "2640", "1600", "7777"])
def test_only_permissions(project: Workspace, mode: str) -> None:
    """The project writes the template: it could otherwise plant a program that runs as the user who
    rendered it."""
    project.register(MANIFEST.replace("0440", mode))
    assert "the file_mode of KEY sets more than permissions\nHint: in the manifest" in refused(project.run("render"), 1)
    assert everything_below(project.home) == []


def test_only_file_bindings_are_rendered(project: Workspace) -> None:
    assert "TOKEN is bound to a variable" in refused(project.run("render", "--only=aws,TOKEN"), 1)
    assert project.run("render", "--only=aws").stdout.decode() == f"{project.home}/.aws/credentials\n"


# --- removing


def test_removing_needs_neither_the_broker_nor_the_old_manifest(project: Workspace) -> None:
    project.run("render")
    project.broker.stop()
    project.manifest.write_text(
        MANIFEST.replace("keys/app.key", "keys/new.key").replace("[secrets.aws]", "[secrets.b]")
    )
    done = project.run("render", "--remove", env={"REMO_BROKER_SOCKET": "/nowhere/x.sock"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert everything_below(project.home) == [".aws", "keys"]
    assert os.listdir(project.rendered) == []


@pytest.fixture
def nothing_else_rendered() -> None:
    """Without a manifest, files that this user rendered outside the tests would matter."""
    for directory in tmpfs.candidates():
        own = os.path.join(directory, tmpfs.own_name())
        if any(files for _, _, files in os.walk(own)):
            unavailable(f"there are rendered files of this user's in {own}")


@pytest.mark.usefixtures("nothing_else_rendered")
@pytest.mark.parametrize("manifest", ["not TOML", None])
def test_removing_without_a_manifest(project: Workspace, manifest: str | None) -> None:
    project.run("render")
    if manifest is None:
        project.manifest.unlink()
    else:
        project.manifest.write_text(manifest)
    assert project.run("render", "--remove").returncode == 0
    assert os.listdir(project.rendered) == []


def test_removing_some(project: Workspace) -> None:
    project.run("render")
    assert project.run("render", "--remove", "--only=aws,OTHER").returncode == 0
    assert sorted(os.listdir(project.rendered)) == ["KEY", "KEY.place"]
    assert "names of secrets" in refused(project.run("render", "--remove", "--only=../x"), 2)


@pytest.mark.usefixtures("nothing_else_rendered")
def test_removing_only_files_of_this_project(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    project.run("render")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(project.memory))
    Rendering("other", {"X": File(str(project.home / "x"), b"x", 0o600)}).close()
    assert "there are files of myrepo, other\nHint: choose the project" in refused(
        project.run("render", "--remove", cwd=project.home), 1
    )
    assert project.run("render", "--remove").returncode == 0
    assert project.run("render", "--remove").returncode == 0, "nor does the second time take the other's"
    assert (project.home / "x").read_bytes() == b"x"
    project.run("render", "--remove", cwd=project.home)
    assert not os.path.lexists(project.home / "x"), "one of them is certain"


def test_a_link_that_has_been_replaced_stays(project: Workspace) -> None:
    project.run("render")
    credentials = project.home / ".aws/credentials"
    credentials.unlink()
    credentials.symlink_to(project.rendered / "KEY")
    (project.home / "keys/app.key").unlink()
    (project.home / "keys/app.key").write_text("mine")
    assert project.run("render", "--remove").returncode == 0
    assert os.readlink(credentials) == f"{project.rendered}/KEY"
    assert (project.home / "keys/app.key").read_text() == "mine"


# --- modes and places


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_modes_do_not_depend_on_the_umask(project: Workspace, umask: str) -> None:
    project.register(MANIFEST.replace("keys/app.key", "a/b/c/app.key"))
    assert shell(project, f'umask {umask}; exec "$@"', "render").returncode == 0
    modes = [(project.home / path).stat().st_mode & 0o7777 for path in ("a", "a/b", "a/b/c", "a/b/c/app.key")]
    assert modes == [0o700, 0o700, 0o700, 0o400]
    assert project.rendered.stat().st_mode & 0o7777 == 0o700


def test_streams_that_are_closed(project: Workspace) -> None:
    """Neither a file nor the connection becomes the command's standard output."""
    assert shell(project, 'exec "$@" <&- >&- 2>&-', "render").returncode == 1, "it cannot say what it has written"
    assert (project.home / "keys/app.key").read_bytes() == KEY
    report = project.home / "report"
    show = (
        f"import os; there = repr([os.path.exists(f'/proc/self/fd/{{n}}') for n in range(3)])\n"
        f"open({str(report)!r}, 'w').write(there)"
    )
    done = shell(project, 'exec "$@" <&- >&- 2>&-', "exec", sys.executable, "-c", show)
    assert done.returncode == 0
    assert report.read_text() == "[False, False, False]"


@pytest.mark.parametrize(
    "text",
    [
        "/dev/shm/remo-secret-4242/p/KEY",
        "/dev/shm/remo-secret-{uid}/p/KEY/x",
        "/dev/shm/remo-secret-{uid}/P/KEY",
        "/dev/shm/remo-secret-{uid}/p/KEY.place",
        "/dev/shm/remo-secret-{uid}/../KEY",
        "remo-secret-{uid}/p/KEY",
        "../remo-secret-{uid}/p/KEY",
    ],
)
def test_a_link_of_another_program(directory: pathlib.Path, text: str) -> None:
    link = directory / "link"
    link.symlink_to(text.format(uid=os.geteuid()))
    assert file_behind(str(link)) is None


def test_how_a_file_path_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for path, target in (("~/a", "/home/me/a"), ("a/./b", "/home/me/a/b"), ("/x/../y", "/y"), ("~root/a", "/root/a")):
        assert target_of(path) == target
    with pytest.raises(Problem, match="begins with ~nobody-of-that-name, but there is no such user"):
        target_of("~nobody-of-that-name/a")
    for home in ("", "relative"):
        monkeypatch.setenv("HOME", home)
        with pytest.raises(Problem, match=r"home directory is unknown"):
            target_of("a")


@pytest.mark.takes_root("running as another user")
def test_a_runtime_directory_of_another_user(memory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo` may keep the variable: the directory's owner could replace root's files."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory))
    assert tmpfs.find_memory() == str(memory)
    tmpfs.make_folder("p").close()
    for mode, owner, safe in ((0o777, 0, False), (0o1777, 0, True), (0o700, NOBODY, False)):
        os.chown(memory, owner, owner)
        memory.chmod(mode)
        assert (tmpfs.find_memory() == str(memory)) == safe
        found = tmpfs.folders("p")
        assert bool(found) == safe, "nor is anything removed there"
        for folder in found:
            folder.close()


def test_a_directory_that_is_in_the_way(memory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(memory))
    base = memory / tmpfs.own_name()
    base.mkdir()
    (base / "p").symlink_to("/etc")
    with pytest.raises(Problem, match=f"{base}/p: "):
        tmpfs.make_folder("p")
    assert tmpfs.folders("p") == []
    base.chmod(0o777)
    with pytest.raises(Problem, match="others may write to it"):
        tmpfs.make_folder("p")
