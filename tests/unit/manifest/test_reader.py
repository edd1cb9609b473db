"""Opening a manifest on a real file system, with anything but a manifest in its place."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

import remo_broker.manifest.acl  # noqa: F401 - `read` imports it, and `nobody` may not reach this tree
from remo_broker.manifest import ManifestError
from remo_broker.manifest.constants import MAX_BYTES
from remo_broker.manifest.reader import read
from remo_broker.protocol.codes import Code
from tests.support.machine import unavailable
from tests.support.manifests import GOOD, PLACES, ProjectDirectory
from tests.unit.manifest.reading import refusal

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

FOREIGN = b"a line that is nobody's business\n"
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)
IN_OPEN = 0x20


# --- where it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_each_place_is_searched(project: ProjectDirectory, place: str) -> None:
    file = project.write(GOOD, place)
    assert read(str(project.path)) == (str(file), GOOD)
    assert read(f"{project.path}//") == (str(file), GOOD)


def test_the_first_place_wins(project: ProjectDirectory) -> None:
    for place in reversed(PLACES):
        file = project.write(place, place)
        assert read(str(project.path)) == (str(file), place.encode())


@pytest.mark.parametrize("earlier", PLACES[:-1])
def test_the_search_ends_at_a_file_that_fails(project: ProjectDirectory, earlier: str) -> None:
    project.write(GOOD, PLACES[-1])
    file = project.path / earlier
    file.parent.mkdir(exist_ok=True)
    file.mkdir()
    assert refusal(project).startswith(f"{earlier}: a directory, not a regular file")


def test_no_manifest(project: ProjectDirectory) -> None:
    message = refusal(project, Code.MANIFEST_NOT_FOUND)
    assert all(place in message for place in PLACES)
    (project.path / ".devcontainer").mkdir()
    refusal(project, Code.MANIFEST_NOT_FOUND)


def test_no_project_directory(project: ProjectDirectory) -> None:
    assert "no such directory" in refusal(project.path / "nowhere", Code.MANIFEST_NOT_FOUND)
    (project.path / "file").touch()
    assert "no such directory" in refusal(project.path / "file" / "x", Code.MANIFEST_NOT_FOUND)
    assert "not a directory" in refusal(project.path / "file")


@pytest.mark.parametrize("path", ["", "myrepo", "./myrepo", "/tmp\0/x"])
def test_a_relative_path_is_refused(path: str) -> None:
    with pytest.raises(ManifestError, match="absolute") as caught:
        read(path)
    assert caught.value.code is Code.MANIFEST_NOT_FOUND


def test_a_path_that_is_too_long_is_refused(project: ProjectDirectory) -> None:
    refusal(project.path / ("x" * 300))


# --- what it is ------------------------------------------------------------------------------------------------------


def test_a_symlink_in_its_place(project: ProjectDirectory) -> None:
    target = project.write(GOOD, ".devcontainer/real.toml")
    (project.path / PLACES[0]).symlink_to(target.name)
    assert refusal(project).startswith(f"{PLACES[0]}: a symlink, not a regular file")
    target.unlink()
    assert "a symlink" in refusal(project), "and one that leads nowhere"


@pytest.mark.parametrize("target", ["real", "../outside", "/etc"])
def test_a_symlink_on_the_path_to_the_manifest(project: ProjectDirectory, target: str) -> None:
    for folder in ("real", "../outside"):
        project.write(GOOD, f"{folder}/{Path(PLACES[0]).name}")
    (project.path / ".devcontainer").symlink_to(target)
    assert refusal(project).startswith(".devcontainer: a symlink, not a directory")


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_a_symlink_as_the_project(project: ProjectDirectory, slashes: str) -> None:
    project.write()
    link = project.path.parent / "link"
    link.symlink_to("myrepo")
    with pytest.raises(ManifestError, match="project_path: a symlink, not a directory") as caught:
        read(f"{link}{slashes}")
    assert caught.value.code is Code.MANIFEST_UNREADABLE


def test_a_symlink_above_the_project_is_followed(project: ProjectDirectory) -> None:
    project.write()
    above = project.path.parent / "above"
    above.symlink_to(project.path.parent)
    assert read(f"{above}/myrepo") == (f"{above}/myrepo/{PLACES[0]}", GOOD)


@pytest.mark.parametrize("place", [PLACES[0], ".devcontainer"])
def test_a_fifo_a_socket_a_directory(project: ProjectDirectory, place: str) -> None:
    path = project.path / place
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    assert refusal(project).startswith(f"{place}: a FIFO, not a ")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert refusal(project).startswith(f"{place}: a socket, not a ")
    path.unlink()
    if place == PLACES[0]:
        path.mkdir()
        assert refusal(project).startswith(f"{place}: a directory, not a regular file")
    else:
        path.touch()
        assert refusal(project).startswith(f"{place}: a regular file, not a directory")


@pytest.mark.takes_devices
def test_a_device(project: ProjectDirectory) -> None:
    (project.path / ".remo").mkdir()
    path = project.path / PLACES[1]
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    assert "a character device, not a regular file" in refusal(project)
    path.unlink()
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 0))
    assert "a block device, not a regular file" in refusal(project)


def test_only_a_regular_file_is_opened(project: ProjectDirectory) -> None:
    """Opening some devices does something: it rewinds a tape or arms a watchdog."""
    file = project.write()
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert libc.inotify_add_watch(watch, os.fsencode(file.parent), IN_OPEN) > 0
    read(str(project.path))
    assert file.name.encode() in os.read(watch, 4096), "an open is seen"
    file.unlink()
    os.mkfifo(file)
    refusal(project)
    with pytest.raises(BlockingIOError):
        os.read(watch, 4096)
    os.close(watch)


def test_the_largest_file(project: ProjectDirectory) -> None:
    project.write(b"#" * MAX_BYTES)
    assert len(read(str(project.path))[1]) == MAX_BYTES
    project.write(b"#" * (MAX_BYTES + 1))
    assert f"larger than {MAX_BYTES} bytes" in refusal(project)


def test_an_empty_file(project: ProjectDirectory) -> None:
    project.write(b"")
    assert read(str(project.path))[1] == b""


def test_a_sparse_file(project: ProjectDirectory) -> None:
    file = project.write(GOOD)
    os.truncate(file, 32_768)
    assert "a sparse file" in refusal(project)
    os.truncate(file, 1 << 40)
    assert "larger than" in refusal(project)


# --- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.takes_root("giving a file away")
def test_a_hard_link_to_somebody_elses_file(project: ProjectDirectory) -> None:
    foreign = project.path.parent / "foreign"
    foreign.write_bytes(FOREIGN)
    os.chown(project.path, NOBODY, NOBODY)
    (project.path / ".remo").mkdir()
    os.link(foreign, project.path / PLACES[2])
    assert "a hard link to a file of another user" in refusal(project)
    os.chown(foreign, NOBODY, NOBODY)
    assert read(str(project.path))[1] == FOREIGN, "its own file may have two names: backups make them"


@pytest.mark.takes_root("giving a file away")
def test_a_file_that_root_wrote_for_the_project(project: ProjectDirectory) -> None:
    project.write()
    os.chown(project.path, NOBODY, NOBODY)
    assert read(str(project.path))[1] == GOOD


def as_nobody(path: Path) -> str:
    """What `read` returns in a process of the user nobody."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                _, content = read(str(path))
                os.write(send, content)
            except ManifestError as error:
                os.write(send, f"{error.code}: {error.message}".encode())
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.takes_root("reading as another user")
def test_permission_denied_names_the_user(project: ProjectDirectory) -> None:
    file = project.write()
    assert as_nobody(project.path) == GOOD.decode()
    name = pwd.getpwuid(NOBODY).pw_name
    for path, place, command in (
        (
            file,
            PLACES[0],
            f"setfacl -m u:{name}:r {file} && setfacl -m u:{name}:x,d:u:{name}:r,d:g::-,d:o::- {file.parent} ",
        ),
        (file.parent, PLACES[0], f"setfacl -m u:{name}:x {file.parent} "),
        (project.path, ".devcontainer", f"setfacl -m u:{name}:x {project.path} "),
        (project.path.parent, "project_path", f"setfacl -m u:{name}:x {project.path.parent} "),
    ):
        mode = path.stat().st_mode
        path.chmod(0o600)
        said = as_nobody(project.path)
        assert said.startswith(f"manifest_unreadable: {place}: permission denied for user {name} (uid {NOBODY})")
        assert f"run: {command}" in said
        path.chmod(mode)
    assert as_nobody(project.path) == GOOD.decode()


@pytest.mark.takes_root("reading as another user")
def test_the_command_that_the_error_names_gives_no_other_user_more(project: ProjectDirectory) -> None:
    """What an ACL says of others may be withheld by its mask."""
    if shutil.which("setfacl") is None:
        unavailable("setfacl is not installed here: ./run test installs it")
    file = project.write()
    others = {"user:12345:rwx", "group:54321:rwx"}
    for path in (project.path, file.parent, file):
        subprocess.run(["setfacl", "-m", "u:12345:rwx,g:54321:rwx", path], check=True)
        path.chmod(0o700)
    for _ in range(5):
        said = as_nobody(project.path)
        if said == GOOD.decode():
            break
        command = said.partition("run: ")[2].partition(" (package acl)")[0]
        subprocess.run(command, shell=True, check=True)
    assert said == GOOD.decode()
    for path in (project.path, file.parent, file):
        shown = subprocess.run(["getfacl", "-cE", path], capture_output=True, text=True, check=True).stdout.split()
        assert others.isdisjoint(shown)
        assert "user:12345:---" in shown
    (file.parent / "new").touch()
    mode = (file.parent / "new").stat().st_mode
    assert mode & 0o007 == 0
