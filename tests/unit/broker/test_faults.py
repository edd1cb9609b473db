"""What the log says about a bug: its type and place."""

from __future__ import annotations

from types import SimpleNamespace

from remo_broker.broker.daemon import Daemon


def raised() -> BaseException:
    try:
        raise ValueError("zqMarkerqz")
    except ValueError as error:
        return error


def test_a_bug_is_logged_without_its_text() -> None:
    said: list[str] = []
    Daemon._bug(SimpleNamespace(_log=lambda _priority, message: said.append(message)), raised())  # type: ignore[arg-type]
    [line] = said
    assert "zqMarkerqz" not in line
    assert "ValueError" in line
    assert "test_faults.py:" in line
