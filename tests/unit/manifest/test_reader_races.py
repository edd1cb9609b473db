"""Opening a manifest while another process leases, changes or swaps it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remo_broker.manifest import ManifestError
from remo_broker.manifest.reader import read, read_unchanged
from tests.support.machine import unavailable
from tests.support.manifests import GOOD, PLACES, ProjectDirectory
from tests.unit.manifest.reading import attempt, other_process, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

FOREIGN = b"a line that is nobody's business\n"

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def test_a_leased_file(project: ProjectDirectory) -> None:
    file = project.write()

    def lease() -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        descriptor = os.open(file, os.O_RDWR)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    began = time.monotonic()
    with other_process(lease):
        assert "another program holds a lease on it" in refusal(project)
    assert time.monotonic() - began < 40, "opening it any other way waits for 45 s"
    assert read(str(project.path))[1] == GOOD


def dates_mapped_writes(directory: Path) -> bool:
    """Whether the file system changes a file's times for writes through a mapping; tmpfs does
    not."""
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


@pytest.mark.parametrize("change", ["grows", "is written again", "shrinks", "is mapped"])
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
    work = {"grows": grow, "is written again": write_anew, "shrinks": shrink, "is mapped": map_it}[change]
    end = time.monotonic() + 30
    with other_process(work):
        while "it changed while it was read; let what writes it finish" not in attempt(project):
            assert time.monotonic() < end, "no change was ever seen"
    os.close(descriptor)


def test_a_file_that_holds_more_than_its_size_says(project: ProjectDirectory) -> None:
    """Like the kernel's pseudo files; only root can put one in a manifest's place."""
    with open("/proc/self/status", "rb") as made_up, pytest.raises(ManifestError, match="it changed"):
        read_unchanged(made_up.fileno(), PLACES[0])


@pytest.mark.parametrize("what", ["the file", "the folder"])
def test_swapped_for_a_symlink_while_it_is_read(project: ProjectDirectory, what: str) -> None:
    """No race makes the reader read a foreign file."""
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
