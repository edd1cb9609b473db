"""The limits of the machine: echo.c, with and without an audit record before each reply."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.bench import journal
from tests.bench.broker import GET
from tests.bench.generator import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contestant import Place


@contextlib.contextmanager
def plain(place: Place, reply_bytes: int) -> Iterator[Target]:
    """A C server that answers `reply_bytes` bytes to each line."""
    with _server(place, "echo", str(reply_bytes)) as target:
        yield target


@contextlib.contextmanager
def audited(place: Place, reply_bytes: int, like: dict[str, str]) -> Iterator[Target]:
    """The same, with a record that has the fields of `like` handed to journald before each reply."""
    record = journal.record(place, like)
    with _server(place, "echo-audited", str(reply_bytes), journal.SOCKET, str(record)) as target:
        yield target


@contextlib.contextmanager
def _server(place: Place, name: str, *arguments: str) -> Iterator[Target]:
    path = place.work / f"{name}.sock"
    try:
        with place.server([str(place.programs.echo), str(path), *arguments], path):
            yield Target(str(path), GET, expect=".")
    finally:
        path.unlink(missing_ok=True)
