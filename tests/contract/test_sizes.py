"""No file is so long that a reader loses the thread."""

from __future__ import annotations

from tests.support.machine import REPOSITORY

MAX_LINES = 400
PLACES = ("remo_broker", "tests", "feature", "debian")


def test_no_file_has_more_lines_than_can_be_read_at_once() -> None:
    files = [one for place in PLACES for one in (REPOSITORY / place).rglob("*") if one.suffix in (".py", ".sh")]
    assert len(files) > 100
    lengths = {one: len(one.read_text().splitlines()) for one in (*files, REPOSITORY / "run")}
    assert {str(one.relative_to(REPOSITORY)): n for one, n in lengths.items() if n >= MAX_LINES} == {}
