"""Anything in a manifest's place is refused in one line; nothing foreign is read, and other
projects are served meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.manifest_child import MAX_READERS
from tests.support.broker import NOBODY, WAIT_SECONDS, Link, registration
from tests.support.late import patiently
from tests.support.machine import poll
from tests.support.manifests import PLACES
from tests.support.privileges import require_devices, require_root
from tests.support.processes import children
from tests.support.silent import silent
from tests.unit.manifest.test_document import BOMBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import StartBroker
    from tests.process.isolation.conftest import OtherClient
    from tests.support.broker import Broker, Reply

FOREIGN = 'schema_version = 1\nproject = "myrepo"\n[secrets.STOLEN]\n'
GOOD = 'schema_version = 1\nproject = "myrepo"\n[secrets.OWN]\n'
UNREADABLE, INVALID = {"manifest_unreadable"}, {"manifest_invalid"}
EITHER = UNREADABLE | INVALID
RELOADS = 12
# Codes for a manifest that others change meanwhile.
ATTEMPTS = 3
# How many gets of another project are answered before the operator whose manifest is being read. A
# broker that read it itself could answer one before and one after; a reader takes the time of
# twenty to start.
MIN_GETS = 4

# Both report that they have begun, and run until they are killed.
_GROW = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(descriptor, b"#" * 60000)
print(flush=True)
while True:
    os.write(descriptor, b"#")
    if os.lseek(descriptor, 0, os.SEEK_CUR) > 65000:
        os.ftruncate(descriptor, 60000)
        os.lseek(descriptor, 0, os.SEEK_END)
"""
_LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
signal.pause()
"""
# In bursts: a file that is swapped all the time is never read whole.
_SWAP = """
import ctypes, os, random, sys, time
libc, paths = ctypes.CDLL(None), [os.fsencode(path) for path in sys.argv[1:3]]
print(flush=True)
while True:
    for _ in range(random.randrange(1000)):
        libc.renameat2(-100, paths[0], -100, paths[1], 2)  # RENAME_EXCHANGE
    time.sleep(random.random() * 0.01)
"""


@contextlib.contextmanager
def program(code: str, *arguments: pathlib.Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-ISc", code, *arguments], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def ask_beside(broker: Broker, other_client: OtherClient, request: Reply) -> Reply:
    """The operator's reply; another project's gets must be answered until then."""

    def once() -> Reply:
        with Link(broker.admin) as operator:
            operator.send(request)
            assert other_client.gets_until_reply(operator) >= MIN_GETS
            return operator.reply()

    return patiently(once)


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    # The other client asks for as long as a manifest takes; without a rate limit, so that it does
    # not exceed one on a slow machine.
    broker = start_broker(projects=[registration("quiet", "TOKEN")], rate_limit_per_second=0)
    broker.push({"TOKEN": "value"})
    return broker


@pytest.fixture
def place(directory: pathlib.Path) -> pathlib.Path:
    place = directory / "myrepo" / PLACES[0]
    place.parent.mkdir(parents=True)
    (directory / "foreign").write_text(FOREIGN)
    return place


def _symlink(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    place.symlink_to(place.parents[2] / "foreign")


def _fifo(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    os.mkfifo(place)


def _socket(place: pathlib.Path, stack: contextlib.ExitStack) -> None:
    stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(place))


def _device(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


def _directory(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    place.mkdir()


def _sparse(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    place.write_text(GOOD)
    os.truncate(place, 60_000)


def _growing(place: pathlib.Path, stack: contextlib.ExitStack) -> None:
    stack.enter_context(program(_GROW, place))


def _leased(place: pathlib.Path, stack: contextlib.ExitStack) -> None:
    stack.enter_context(program(_LEASE, place))


def _hard_link(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    os.chown(place.parents[1], NOBODY, NOBODY)
    os.link(place.parents[2] / "foreign", place)


def _control_characters(place: pathlib.Path, _stack: contextlib.ExitStack) -> None:
    place.write_text(GOOD + '[secrets."A\\u001b[2J\\u202e"]\n"\\u0007" = 1\n')


# What the refusal says. A reader that waits until its deadline would also be a refusal.
FILES = {
    _symlink: "a symlink, not a regular file",
    _fifo: "a FIFO, not a regular file",
    _socket: "a socket, not a regular file",
    _device: "a character device, not a regular file",
    _directory: "a directory, not a regular file",
    _sparse: "a sparse file",
    _growing: "",  # it may be complete when it is read, and not a manifest
    _leased: "another program holds a lease on it",
    _hard_link: "a hard link to a file of another user",
    _control_characters: "",
}


@pytest.mark.parametrize(("make", "says"), FILES.items())
def test_no_manifest(
    broker: Broker,
    other_client: OtherClient,
    place: pathlib.Path,
    make: Callable[[pathlib.Path, contextlib.ExitStack], None],
    says: str,
) -> None:
    if make is _device:
        require_devices()
    if make is _hard_link:
        require_root("giving a file away")
    with contextlib.ExitStack() as stack:
        make(place, stack)
        codes = INVALID if make is _control_characters else EITHER if make is _growing else UNREADABLE
        for _ in range(ATTEMPTS if make is _growing else 1):
            assert_refused(broker, other_client, place, codes, says)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb(broker: Broker, other_client: OtherClient, place: pathlib.Path, name: str) -> None:
    place.write_text(BOMBS[name][0])
    assert_refused(broker, other_client, place, INVALID)


def assert_refused(
    broker: Broker, other_client: OtherClient, place: pathlib.Path, codes: set[str], says: str = ""
) -> None:
    answer = ask_beside(
        broker, other_client, {"op": "register", "name": "myrepo", "project_path": str(place.parents[1])}
    )
    assert answer["code"] in codes
    assert says in answer["message"]
    assert answer["message"].isascii()
    assert answer["message"].isprintable()
    assert "STOLEN" not in json.dumps([answer, *broker.records()])
    assert broker.status()["project_count"] == 1


def reader_of(broker: Broker) -> int:
    """The broker's child, which exists only for a moment; not before its exec, which the broker
    waits for."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        for child in children(broker.pid):
            if b"remo_broker.manifest" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    raise TimeoutError("no manifest reader was seen")


def test_a_reader_that_hangs(broker: Broker, other_client: OtherClient, place: pathlib.Path) -> None:
    """As on a file system that does not respond: it is abandoned and killed."""
    place.write_text(GOOD)
    request = {"op": "register", "name": "myrepo", "project_path": str(place.parents[1])}
    with Link(broker.admin) as operator:
        operator.send(request)
        os.kill(reader_of(broker), signal.SIGSTOP)
        assert other_client.gets_until_reply(operator) >= MIN_GETS
        answer = operator.reply()
        assert answer["code"] == "manifest_unreadable"
        assert "took longer than" in answer["message"]
    poll("it to be ended", lambda: not children(broker.pid))
    assert broker.ask(request)["ok"]


def test_readers_that_cannot_be_killed(
    broker: Broker, other_client: OtherClient, place: pathlib.Path, directory: pathlib.Path
) -> None:
    """Others take their places, and nothing of them remains once their file system responds."""
    place.write_text(GOOD)
    hanging = MAX_READERS + 1
    (directory / "silent").mkdir()
    with silent(str(directory / "silent"), os.getpid()), contextlib.ExitStack() as stack:
        operators = [stack.enter_context(Link(broker.admin)) for _ in range(hanging)]
        for number, operator in enumerate(operators):
            path = directory / "silent" / f"p{number}"
            operator.send({"op": "register", "name": path.name, "project_path": str(path)})
        gets = sum(other_client.gets_until_reply(operator) for operator in operators)
        assert gets >= MIN_GETS
        assert [operator.reply()["code"] for operator in operators] == ["manifest_unreadable"] * hanging
        request = {"op": "register", "name": "myrepo", "project_path": str(place.parents[1])}
        assert ask_beside(broker, other_client, request)["ok"]
        poll("the one that is done to be reaped", lambda: len(children(broker.pid)) == hanging)
    poll("them to be ended", lambda: not children(broker.pid))
    assert broker.ask({"op": "reload", "name": "myrepo"})["ok"]


def test_swapped_for_a_foreign_file_while_it_is_read(
    broker: Broker, other_client: OtherClient, place: pathlib.Path
) -> None:
    """The foreign file is a manifest that would be valid for the project."""
    place.write_text(GOOD)
    link = place.parents[2] / "link"
    link.symlink_to(place.parents[2] / "foreign")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(place.parents[1])})["ok"]
    with program(_SWAP, place, link):
        answers: list[Reply] = []
        end = time.monotonic() + WAIT_SECONDS
        # Both outcomes of the race: mostly the swap is detected, because it changes the file's
        # times.
        while len(answers) < RELOADS or (len({one["ok"] for one in answers}) < 2 and time.monotonic() < end):
            answers.append(ask_beside(broker, other_client, {"op": "reload", "name": "myrepo"}))
    read = [answer["allowlist"] for answer in answers if answer["ok"]]
    refused = {answer["code"] for answer in answers if not answer["ok"]}
    assert all(allowlist == ["OWN"] for allowlist in read)
    assert read, "the race was run"
    assert refused == {"manifest_unreadable"}
