"""The helper that creates sockets, without systemd."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.binder import files
from tests.support.broker import NOBODY
from tests.support.machine import REPOSITORY, poll, unavailable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

# argv: the descriptor of a connection, the directory of the sockets.
_HELPER = """
import resource, socket, sys
from remo_broker.binder.__main__ import serve
from remo_broker.broker.privileges import drop_capabilities
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
drop_capabilities()
with socket.socket(fileno=int(sys.argv[1])) as connection:
    serve(connection, sys.argv[2])
"""

# What an upgrade does; the arguments are the script and a directory of sockets.
HOST = REPOSITORY / "remo_broker/build/host.sh"
_TAKE_OVER = '. "$1"; take_over_socket_directory "$2"'


@contextlib.contextmanager
def in_flight() -> Iterator[None]:
    """Meanwhile, this user has more descriptors in flight than the helper's limit."""
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [b"x"], [left.fileno()] * 100)
        yield


def test_a_helper_that_cannot_pass_the_sockets_says_why_and_goes_on(directory: pathlib.Path) -> None:
    request = {"op": "make", "project": "app", "owner": "/src/app", "kinds": list(files.KINDS), "renew": False}
    line = json.dumps(request).encode() + b"\n"
    ours, its = socket.socketpair()
    with its:
        command = [sys.executable, "-c", _HELPER, str(its.fileno()), str(directory)]
        helper = subprocess.Popen(command, pass_fds=[its.fileno()])

    def ask() -> tuple[dict[str, Any], int]:
        """Its reply, and how many sockets it passed."""
        ours.sendall(line)
        data, descriptors, *_ = socket.recv_fds(ours, 4096, len(files.KINDS))
        for one in descriptors:
            socket.close(one)
        reply: dict[str, Any] = json.loads(data)
        return reply, len(descriptors)

    with helper, ours:
        ours.settimeout(60)
        with in_flight():
            reply, passed = ask()
        assert (reply["ok"], passed) == (False, 0)
        assert "cannot pass sockets: Too many references" in reply["message"]
        # Other tests may meanwhile keep some in flight, as the same user.
        poll("the helper to pass them", lambda: ask() == ({"ok": True}, len(files.KINDS)))


@pytest.mark.parametrize(("place", "mode"), [("mount", 0o755), ("mount/app", 0o777)])
def test_no_socket_is_made_in_a_directory_that_others_opened(directory: pathlib.Path, place: str, mode: int) -> None:
    """As a container engine makes what is missing of the source of a mount."""
    (directory / "mount").mkdir(mode=0o750)
    (directory / place).mkdir(exist_ok=True)
    (directory / place).chmod(mode)
    with pytest.raises(files.Unavailable, match="open to other users") as raised:
        files.make(str(directory), files.MOUNT, "app", "/src/app", renew=False)
    assert not (directory / "mount/app/broker.sock").exists()
    subprocess.run(str(raised.value).partition("close it: ")[2], shell=True, check=True)
    files.make(str(directory), files.MOUNT, "app", "/src/app", renew=False).close()
    assert stat.S_IMODE(os.stat(directory / "mount").st_mode) == files.GATE_MODE


def test_no_socket_is_made_in_a_directory_of_another_user(directory: pathlib.Path) -> None:
    """As of an earlier version, whose broker owned the directories: it could put a link in a socket's place."""
    (directory / "mount").mkdir(mode=0o750)
    (directory / "mount/app").mkdir()
    try:
        os.chown(directory / "mount/app", NOBODY, -1)
    except PermissionError:
        unavailable("giving a directory to another user takes root")
    with pytest.raises(files.Unavailable, match=f"belongs to uid {NOBODY}"):
        files.make(str(directory), files.MOUNT, "app", "/src/app", renew=False)
    assert list((directory / "mount/app").iterdir()) == []


def test_no_directory_is_kept_that_was_made_for_another_registration(directory: pathlib.Path) -> None:
    """As if the broker was killed before it had saved that, and starts with the former one."""
    for owner, renew in (("/one/app", True), ("/two/app", True), ("/one/app", False)):
        before = os.open(directory / "mount/app", os.O_PATH) if (directory / "mount/app").exists() else -1
        files.make(str(directory), files.MOUNT, "app", owner, renew=renew).close()
        if before >= 0:
            assert not os.path.exists(f"/proc/self/fd/{before}/broker.sock"), owner
            os.close(before)


@pytest.mark.takes_root("giving files to another user")
def test_an_upgrade_takes_the_directories_from_the_user_of_an_earlier_broker(directory: pathlib.Path) -> None:
    """Which may have put links there, for root to follow."""
    place, outside = directory / "s", directory / "outside"
    (place / "mount/app").mkdir(parents=True)
    outside.mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as kept:
        kept.bind(str(place / "mount/app/broker.sock"))
    (place / "internal").symlink_to(outside)
    (place / "mount/app/file").touch()
    for one in (place, outside, *place.rglob("*")):
        os.chown(one, NOBODY, NOBODY, follow_symlinks=False)
    for one in (place, place / "mount", place / "mount/app"):
        one.chmod(0o777)
    subprocess.run(["sh", "-ec", _TAKE_OVER, "sh", HOST, place], check=True)
    left = [place, *place.rglob("*")]
    assert sorted(one.name for one in left) == ["app", "broker.sock", "mount", "s"]
    assert {one.stat().st_uid for one in left} == {0}
    assert not [one for one in left if one.is_dir() and one.stat().st_mode & 0o022]
    assert outside.stat().st_uid == NOBODY


def test_a_late_removal_gives_no_directory_to_the_former_owner(directory: pathlib.Path) -> None:
    """The helper was so slow that the broker has registered another project since. A container of
    that has the directory mounted."""

    def make(owner: str) -> int:
        files.make(str(directory), files.MOUNT, "app", owner, renew=True).close()
        return (directory / "mount/app").stat().st_ino

    make("/one/app")
    mounted = make("/two/app")
    files.remove(str(directory), "app", "/one/app")
    held = os.open(directory / "mount/app", os.O_PATH)  # or its inode could be used again
    try:
        assert make("/one/app") != mounted
    finally:
        os.close(held)


def test_a_directory_that_systemd_made_is_kept_for_its_project(directory: pathlib.Path) -> None:
    (directory / "mount/app").mkdir(parents=True)
    (directory / "mount").chmod(files.GATE_MODE)
    held = os.open(directory / "mount/app", os.O_PATH)
    try:
        files.remove(str(directory), "app", "/one/app")
        files.make(str(directory), files.MOUNT, "app", "/one/app", renew=True).close()
        assert os.fstat(held).st_ino == (directory / "mount/app").stat().st_ino
    finally:
        os.close(held)
