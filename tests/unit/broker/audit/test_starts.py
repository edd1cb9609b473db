"""The file that keeps which start this is, and whether its records wait."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit import starts
from remo_broker.broker.audit.starts import StartFile, previous_fields
from remo_broker.protocol.paths import LAST_START_FILE
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib

START = "a" * 32
PLACE = "journal:"


def said(directory: pathlib.Path) -> list[bytes]:
    return previous_fields(str(directory), PLACE).splitlines()


NAMED = f"REMO_PREVIOUS_START_ID={START}".encode()


def test_it_says_whether_records_wait(tmp_path: pathlib.Path) -> None:
    file = StartFile(str(tmp_path), START, PLACE)
    file.waits(3)  # before it was kept
    assert said(tmp_path) == []
    file.keep()
    assert said(tmp_path) == [NAMED, b"REMO_PREVIOUS_SERIAL=3"]
    file.waits(0)
    assert said(tmp_path) == [NAMED]
    file.waits(12345)
    assert said(tmp_path) == [NAMED, b"REMO_PREVIOUS_SERIAL=12345"]
    file.waits(0)
    assert said(tmp_path) == [NAMED]


def test_a_disk_that_hangs_delays_nobody_for_long_and_gets_the_last_state(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StartFile(str(tmp_path), START, PLACE)
    file.keep()
    goes_on, overwrite = threading.Event(), starts._overwrite

    def hanging(path: str, data: bytes) -> None:
        goes_on.wait()
        overwrite(path, data)

    monkeypatch.setattr(starts, "_overwrite", hanging)
    gives_up = threading.Timer(20, goes_on.set)
    gives_up.start()
    for serial in (3, 0, 7, 0, 9):
        file.waits(serial)
    gives_up.cancel()
    assert not goes_on.is_set()  # it did not wait for the disk
    assert said(tmp_path) == [NAMED]
    goes_on.set()
    poll("the last state", lambda: said(tmp_path) == [NAMED, b"REMO_PREVIOUS_SERIAL=9"])
    file.waits(0)
    poll("the last state", lambda: said(tmp_path) == [NAMED])


def test_a_state_that_is_waited_for_while_an_earlier_one_is_written_is_not_lost(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StartFile(str(tmp_path), START, PLACE)
    file.keep()
    overwrite = starts._overwrite
    for serial in range(1, 11):
        goes_on = threading.Event()

        def hanging(path: str, data: bytes, goes_on: threading.Event = goes_on) -> None:
            goes_on.wait()
            overwrite(path, data)

        monkeypatch.setattr(starts, "_overwrite", hanging)
        file.waits(serial)
        monkeypatch.setattr(starts, "_overwrite", overwrite)
        threading.Timer(starts.WRITE_SECONDS / 5, goes_on.set).start()
        file.waits(0)
        # Unlocked alone says nothing: the thread may be between two writes.
        poll("the last write", lambda: not file._writing.locked() and said(tmp_path) == [NAMED])


def test_without_a_directory_nothing_is_kept(tmp_path: pathlib.Path) -> None:
    file = StartFile(os.path.join(tmp_path, "none"), START, PLACE)
    file.keep()
    file.waits(3)
    file.waits(0)
    assert not (tmp_path / "none" / LAST_START_FILE).exists()
