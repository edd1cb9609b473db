"""Opening a manifest, on a real file system, with everything in its place that is not one."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import multiprocessing
import os
import pwd
import re
import signal
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remo_broker.manifest import ManifestError
from remo_broker.manifest.reader import _read_unchanged, read
from remo_broker.manifest.rules import MAX_BYTES
from remo_broker.protocol.codes import Code
from tests.support.machine import unavailable
from tests.support.manifests import GOOD, PLACES, ProjectDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOREIGN = b"a line that is nobody's business\n"
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)
IN_OPEN, AT_FDCWD, RENAME_EXCHANGE = 0x20, -100, 2

needs_root = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root can set this up")


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


def refusal(project: ProjectDirectory | Path, code: Code = Code.MANIFEST_UNREADABLE) -> str:
    path = project if isinstance(project, Path) else project.path
    with pytest.raises(ManifestError) as caught:
        read(str(path))
    error = caught.value
    assert error.code is code
    assert error.key is None
    assert re.fullmatch(r"[ -~]{1,300}", error.message)
    assert str(path.parent) not in error.message, "what came with a request is not repeated"
    return error.message


def attempt(project: ProjectDirectory) -> str:
    try:
        read(str(project.path))
    except ManifestError as error:
        return error.message
    return "read"


@contextlib.contextmanager
def other_process(work: Callable[[], object]) -> Iterator[int]:
    """`work` in a process of its own: once it says that it is ready by returning, else over and over."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def run() -> None:
        while True:
            again = work()
            ready.set()
            if again is None:
                signal.pause()

    process = context.Process(target=run)
    process.start()
    try:
        assert ready.wait(10)
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()
        process.close()


# --- where it lies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_each_place_is_looked_at(project: ProjectDirectory, place: str) -> None:
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


def test_no_project(project: ProjectDirectory) -> None:
    assert "no such directory" in refusal(project.path / "nowhere", Code.MANIFEST_NOT_FOUND)
    (project.path / "file").touch()
    assert "no such directory" in refusal(project.path / "file" / "x", Code.MANIFEST_NOT_FOUND)
    assert "not a directory" in refusal(project.path / "file")


@pytest.mark.parametrize("path", ["", "myrepo", "./myrepo", "/tmp\0/x"])
def test_the_path_is_absolute(path: str) -> None:
    with pytest.raises(ManifestError, match="absolute") as caught:
        read(path)
    assert caught.value.code is Code.MANIFEST_NOT_FOUND


def test_the_path_is_too_long(project: ProjectDirectory) -> None:
    refusal(project.path / ("x" * 300))


# --- what it is ------------------------------------------------------------------------------------------------------


def test_a_symlink_in_its_place(project: ProjectDirectory) -> None:
    target = project.write(GOOD, ".devcontainer/real.toml")
    (project.path / PLACES[0]).symlink_to(target.name)
    assert refusal(project).startswith(f"{PLACES[0]}: a symlink, not a regular file")
    target.unlink()
    assert "a symlink" in refusal(project), "and one that leads nowhere"


@pytest.mark.parametrize("target", ["real", "../outside", "/etc"])
def test_a_symlink_on_the_way(project: ProjectDirectory, target: str) -> None:
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


def test_a_symlink_above_the_project_is_the_operators(project: ProjectDirectory) -> None:
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


@needs_root
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


def test_a_leased_file(project: ProjectDirectory) -> None:
    file = project.write()

    def lease() -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        descriptor = os.open(file, os.O_RDWR)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    began = time.monotonic()
    with other_process(lease):
        assert "another program holds a lease on it" in refusal(project)
    assert time.monotonic() - began < 5, "opening it any other way waits for 45 s"
    assert read(str(project.path))[1] == GOOD


def dates_mapped_writes(directory: Path) -> bool:
    """Whether the file system here changes a file's times when it is written through a mapping; tmpfs does not."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(4096))
        file.flush()
        os.utime(file.fileno(), (0, 0))
        with mmap.mmap(file.fileno(), 4096) as mapped:
            mapped[0] ^= 1  # a page that was read first is writable without another fault
            mapped.flush()
        return os.fstat(file.fileno()).st_mtime > 0


@pytest.fixture
def project_on_disk() -> Iterator[ProjectDirectory]:
    with tempfile.TemporaryDirectory(prefix="manifest-", dir="/var/tmp") as base:
        if not dates_mapped_writes(Path(base)):
            unavailable("neither /tmp nor /var/tmp is on a file system that dates writes through a mapping")
        path = Path(base, "myrepo")
        path.mkdir()
        yield ProjectDirectory(path)


@pytest.mark.parametrize("change", ["grows", "is written anew", "shrinks", "is mapped"])
def test_a_file_that_changes_while_it_is_read(
    project: ProjectDirectory, change: str, request: pytest.FixtureRequest
) -> None:
    if change == "is mapped" and not dates_mapped_writes(project.path):
        project = request.getfixturevalue("project_on_disk")
    file = project.write(b"#" * 60_000)
    descriptor = os.open(file, os.O_RDWR)
    length = 60_000

    def grow() -> bool:
        nonlocal length
        os.write(descriptor, b"x")
        length += 1
        if length > 62_000:
            length = 60_000
            os.ftruncate(descriptor, length)
        return True

    def write_anew() -> bool:
        os.pwrite(descriptor, b"y", 0)
        return True

    def shrink() -> bool:
        os.ftruncate(descriptor, 30_000)
        os.pwrite(descriptor, b"#" * 30_000, 30_000)
        return True

    def map_it() -> bool:
        with mmap.mmap(descriptor, 60_000) as mapped:
            mapped[0] ^= 1
            mapped.flush()
        return True

    os.lseek(descriptor, 0, os.SEEK_END)
    work = {"grows": grow, "is written anew": write_anew, "shrinks": shrink, "is mapped": map_it}[change]
    end = time.monotonic() + 30
    with other_process(work):
        while "it changed while it was read; let what writes it finish" not in attempt(project):
            assert time.monotonic() < end, "no change was ever seen"
    os.close(descriptor)


def test_a_file_that_holds_more_than_its_size_says(project: ProjectDirectory) -> None:
    """Such as those that a kernel makes up; nothing but root puts one where a manifest is."""
    with open("/proc/self/status", "rb") as made_up, pytest.raises(ManifestError, match="it changed"):
        _read_unchanged(made_up.fileno(), PLACES[0])


# --- whose it is -----------------------------------------------------------------------------------------------------


@needs_root
def test_a_hard_link_to_somebody_elses_file(project: ProjectDirectory) -> None:
    foreign = project.path.parent / "foreign"
    foreign.write_bytes(FOREIGN)
    os.chown(project.path, NOBODY, NOBODY)
    (project.path / ".remo").mkdir()
    os.link(foreign, project.path / PLACES[2])
    assert "a hard link to a file of another user" in refusal(project)
    os.chown(foreign, NOBODY, NOBODY)
    assert read(str(project.path))[1] == FOREIGN, "its own file may have two names: backups make them"


@needs_root
def test_a_file_that_root_wrote_for_the_project(project: ProjectDirectory) -> None:
    project.write()
    os.chown(project.path, NOBODY, NOBODY)
    assert read(str(project.path))[1] == GOOD


def as_nobody(path: Path) -> str:
    """What `read` says to a process that is nobody."""
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


@needs_root
def test_permission_says_for_which_user(project: ProjectDirectory) -> None:
    file = project.write()
    assert as_nobody(project.path) == GOOD.decode()
    name = pwd.getpwuid(NOBODY).pw_name
    for path, place, command in (
        (file, PLACES[0], f"setfacl -m u:{name}:r {file} && setfacl -m u:{name}:x,d:u:{name}:r {file.parent} "),
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


# --- swapped while it is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["the file", "the folder"])
def test_swapped_for_a_symlink_while_it_is_read(project: ProjectDirectory, what: str) -> None:
    """A racing project never gets a foreign file read, whatever stands at the path at which moment."""
    outside = project.path.parent / "outside"
    outside.mkdir()
    (outside / Path(PLACES[0]).name).write_bytes(FOREIGN)
    file = project.write()
    target = file if what == "the file" else file.parent
    symlink = project.path.parent / "symlink"
    symlink.symlink_to(outside / file.name if what == "the file" else outside)

    def swap() -> bool:
        paths = os.fsencode(target), os.fsencode(symlink)
        assert libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0
        return True

    seen: dict[str, int] = {}
    with other_process(swap):
        for _ in range(5_000):
            try:
                path, content = read(str(project.path))
                assert (path, content) == (str(file), GOOD)
                said = "read"
            except ManifestError as error:
                said = error.message.split(";")[0].split(": ")[1]
            seen[said] = seen.get(said, 0) + 1
    kind = "a regular file" if what == "the file" else "a directory"
    assert {"read", f"a symlink, not {kind}"} <= set(seen), "the race was run"
