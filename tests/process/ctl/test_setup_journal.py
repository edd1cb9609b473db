"""What a `setup-journal` that fails midway leaves behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from remo_broker.ctl import setup_journal

if TYPE_CHECKING:
    import pathlib

HAS_BROKER_WRITE_THERE = "50-journal.conf"


@pytest.fixture
def files(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[pathlib.Path]:
    """Its files, in another place."""
    moved = {str(directory) + path: text for path, text in setup_journal.FILES.items()}
    monkeypatch.setattr(setup_journal, "FILES", moved)
    return [*map(type(directory), moved)]


def test_the_broker_writes_to_no_journal_that_others_can_write_to(files: list[pathlib.Path]) -> None:
    [service] = [path for path in files if path.name == HAS_BROKER_WRITE_THERE]
    others = [path for path in files if path != service]
    for obstacle in others:
        obstacle.mkdir(parents=True)  # cannot be written
        with pytest.raises(OSError, match=os.path.basename(obstacle)):
            setup_journal.write_files()
        assert not service.exists()
        obstacle.rmdir()
    setup_journal.write_files()
    assert all(path.is_file() for path in files)
    for obstacle in others:
        text = obstacle.read_text()
        obstacle.unlink()
        obstacle.mkdir()  # cannot be removed
        with pytest.raises(OSError, match=os.path.basename(obstacle)):
            setup_journal.remove_files()
        assert not service.exists()
        obstacle.rmdir()
        setup_journal.write_files()
        assert obstacle.read_text() == text
    setup_journal.remove_files()
    assert not any(path.exists() for path in files)
