"""Registrations on disk: either exactly what was saved, or none."""

from __future__ import annotations

import json
import os
import pathlib
import select
import stat
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remo_broker.broker.projects import Registration
from remo_broker.broker.registrations import (
    ASIDE_NAME,
    FILE_NAME,
    MAX_ASIDE,
    Damaged,
    Unread,
    Writer,
    encode,
    load,
    save,
)
from tests.support.broker import registration
from tests.support.machine import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY: dict[str, Any] = {
    "name": "myrepo",
    "project_path": "/projects/myrepo",
    "allowlist": ["GITHUB_TOKEN", "aws"],
    "ttl_seconds": 600,
    "max_entries": 16,
    "allowed_uids": [1000],
}


def fields(one: Registration) -> tuple[Any, ...]:
    return one.name, one.project_path, one.allowlist, one.ttl_seconds, one.max_entries, one.allowed_uids


registrations = st.builds(
    Registration,
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True).filter(lambda name: name not in ("admin", "status")),
    st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: "/" + text),
    st.lists(st.from_regex(r"[A-Za-z0-9_]{1,128}", fullmatch=True), unique=True, max_size=5),
    st.integers(1, 86_400),
    st.integers(1, 1024),
    st.lists(st.integers(0, 2**32 - 2), max_size=3),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(registrations, unique_by=lambda one: one.name, max_size=5))
def test_what_is_saved_is_loaded(some: list[Registration]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        save(directory, encode(some))
        assert [fields(one) for one in load(directory)] == sorted(fields(one) for one in some)


def test_without_a_file_nothing_is_loaded(tmp_path: pathlib.Path) -> None:
    assert load(str(tmp_path)) == []
    assert load(str(tmp_path / "none")) == []


@pytest.mark.parametrize("host", ["H", "h\x1b[2J", "\u0433ithub.com", ""])
def test_an_invalid_host_is_not_loaded(tmp_path: pathlib.Path, host: str) -> None:
    manifest = {"path": "/p", "sha256": "0" * 64, "hosts": {host: "aws"}, "bindings": {}}
    document = {"version": 1, "projects": [ENTRY | {"manifest": manifest}]}
    (tmp_path / FILE_NAME).write_text(json.dumps(document))
    with pytest.raises(Damaged):
        load(str(tmp_path))


def test_only_the_broker_can_read_the_file(tmp_path: pathlib.Path) -> None:
    save(str(tmp_path), encode([]))
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    save(str(tmp_path), encode([registration("old")]))
    (tmp_path / f"{FILE_NAME}.new").mkdir()  # in place of the temporary file
    with pytest.raises(OSError, match="directory"):
        save(str(tmp_path), encode([registration("new")]))
    assert [one.name for one in load(str(tmp_path))] == ["old"]


def test_a_symlink_in_place_of_the_temporary_file_is_not_followed(tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / f"{FILE_NAME}.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        save(str(tmp_path), encode([]))
    assert victim.read_text() == "kept"


def document(**changes: Any) -> bytes:
    return json.dumps({"version": 1, "projects": [ENTRY | changes]}).encode()


def without(key: str) -> bytes:
    return json.dumps({"version": 1, "projects": [{name: ENTRY[name] for name in ENTRY if name != key}]}).encode()


GOOD = document()
DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "cut short": GOOD[:-2],
    "not UTF-8": b"\xff" + GOOD,
    "zeros": bytes(100),
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "no version": b'{"projects":[]}',
    "another version": b'{"version":2,"projects":[]}',
    "no projects": b'{"version":1}',
    "projects an object": b'{"version":1,"projects":{}}',
    "an entry of another type": b'{"version":1,"projects":[5]}',
    "the same name twice": json.dumps({"version": 1, "projects": [ENTRY, ENTRY]}).encode(),
    **{f"no {key}": without(key) for key in ENTRY},
    **{f"name {name!r}": document(name=name) for name in ("", "A", "../x", "admin", "status", 5, None)},
    **{f"path {path!r}": document(project_path=path) for path in ("relative", "", 5, None)},
    **{
        f"allowlist {names!r}": document(allowlist=names)
        for names in ("A", {"A": 1}, ["A-B"], [""], [5], [None], ["A" * 129], ["A", "A"])
    },
    **{f"uids {uids!r}": document(allowed_uids=uids) for uids in (5, None, "0", [-1], ["0"], [True], [1.5], {"0": 1})},
    **{f"ttl {ttl!r}": document(ttl_seconds=ttl) for ttl in (0, 86_401, -1, 1.5, "600", True, None)},
    **{f"entries {entries!r}": document(max_entries=entries) for entries in (0, 1025, "16", True, None)},
}


def test_the_unmodified_document_is_loaded(tmp_path: pathlib.Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(GOOD)
    assert [fields(one) for one in load(str(tmp_path))] == [
        ("myrepo", "/projects/myrepo", ("GITHUB_TOKEN", "aws"), 600, 16, (1000,))
    ]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_kept_aside(tmp_path: pathlib.Path, name: str) -> None:
    """The broker starts without it: a damaged registration must allow nothing."""
    (tmp_path / FILE_NAME).write_bytes(DAMAGED[name])
    with pytest.raises(Damaged) as raised:
        load(str(tmp_path))
    assert str(tmp_path / FILE_NAME) in str(raised.value)
    assert ASIDE_NAME in str(raised.value)
    (aside,) = tmp_path.glob(f"{ASIDE_NAME}-*")
    assert aside.read_bytes() == DAMAGED[name]
    assert str(aside) in str(raised.value)
    assert load(str(tmp_path)) == []


def test_a_limited_number_of_damaged_files_is_kept(tmp_path: pathlib.Path) -> None:
    for number in range(MAX_ASIDE + 2):
        (tmp_path / FILE_NAME).write_text(f"damaged {number}")
        with pytest.raises(Damaged):
            load(str(tmp_path))
    kept = [path.read_text() for path in sorted(tmp_path.glob(f"{ASIDE_NAME}-*"))]
    assert kept == [f"damaged {number}" for number in range(2, MAX_ASIDE + 2)]


def test_a_file_that_cannot_be_read_stays_where_it_is(tmp_path: pathlib.Path) -> None:
    """It may be intact, and the next start may be able to read it."""
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(Unread, match="not a regular file"):
        load(str(tmp_path))
    assert os.listdir(tmp_path) == [FILE_NAME]


@pytest.mark.parametrize("how", ["symlink", "FIFO", "of another user", "writable by others"])
def test_a_file_that_others_may_have_written_is_not_read(tmp_path: pathlib.Path, how: str) -> None:
    file = tmp_path / FILE_NAME
    save(str(tmp_path), encode([]))
    if how == "symlink":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif how == "FIFO":
        file.unlink()
        os.mkfifo(file)
    elif how == "of another user":
        if os.geteuid() != 0:
            unavailable("giving a file away takes root")
        os.chown(file, 65534, -1)
    else:
        file.chmod(0o620)
    with pytest.raises(Unread):
        load(str(tmp_path))
    assert file.lstat()


# --- the writer


@pytest.fixture
def writer(tmp_path: pathlib.Path) -> Iterator[Writer]:
    writer = Writer(str(tmp_path))
    yield writer
    settle(writer)
    writer.close()


def settle(writer: Writer) -> None:
    """Run the loop until no save is in progress."""
    while writer.busy:
        assert select.select([writer.wakeup], [], [], 20)[0]
        writer.finished()


def test_callbacks_run_in_the_loops_thread(writer: Writer, tmp_path: pathlib.Path) -> None:
    told: list[OSError | None] = []
    writer.save([registration("one")], told.append)
    assert select.select([writer.wakeup], [], [], 20)[0]
    assert writer.busy
    assert told == []
    settle(writer)
    assert told == [None]
    assert [one.name for one in load(str(tmp_path))] == ["one"]


# No address space beyond what the process has: a thread's stack does not fit.
_NO_ROOM = """
import resource, sys
from remo_broker.broker import registrations
told = []
writer = registrations.Writer(sys.argv[1])
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**20, resource.RLIM_INFINITY))
try:
    registrations._thread.start_new_thread(print, ())
except RuntimeError:
    writer.save([], told.append)
    writer.finished()
print(told)
"""


def test_without_room_for_a_thread_it_saves_nevertheless(tmp_path: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, "-c", _NO_ROOM, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "[None]\n"
    assert load(str(tmp_path)) == []
    assert (tmp_path / FILE_NAME).exists()


def test_a_callback_may_save_again(writer: Writer, tmp_path: pathlib.Path) -> None:
    told: list[OSError | None] = []
    writer.save([registration("first")], lambda _: writer.save([registration("second")], told.append))
    settle(writer)
    assert told == [None]
    assert [one.name for one in load(str(tmp_path))] == ["second"]


def test_an_error_is_reported(writer: Writer, tmp_path: pathlib.Path) -> None:
    told: list[OSError | None] = []
    (tmp_path / f"{FILE_NAME}.new").mkdir()
    writer.save([], told.append)
    settle(writer)
    assert isinstance(told[0], OSError)
    (tmp_path / f"{FILE_NAME}.new").rmdir()
    writer.save([], told.append)
    settle(writer)
    assert told[1] is None


def test_encoding_does_not_run_in_the_loops_thread(writer: Writer, tmp_path: pathlib.Path) -> None:
    """A thousand projects take 40 ms, which others would have to wait for."""
    some = [registration(f"p{number}", "A") for number in range(100)]
    called: list[str] = []
    sys.setprofile(lambda frame, _event, _argument: called.append(frame.f_code.co_name))
    try:
        writer.save(some, lambda _: None)
    finally:
        sys.setprofile(None)
    settle(writer)
    assert "save" in called
    assert not {"encode", "_encode", "dumps"} & set(called)
    assert len(load(str(tmp_path))) == 100
    once = [one.encoded for one in some]
    encode(some)
    assert all(one.encoded is before for one, before in zip(some, once, strict=True))


def test_an_unreadable_file_is_kept_before_a_save_replaces_it(writer: Writer, tmp_path: pathlib.Path) -> None:
    save(str(tmp_path), encode([registration("good")]))
    good = (tmp_path / FILE_NAME).read_bytes()
    writer.keep_aside = True
    told: list[OSError | None] = []
    for name in ("one", "two"):
        writer.save([registration(name)], told.append)
        settle(writer)
    (aside,) = tmp_path.glob(f"{ASIDE_NAME}-*")
    assert aside.read_bytes() == good
    assert told == [None, None]
    assert [one.name for one in load(str(tmp_path))] == ["two"]
