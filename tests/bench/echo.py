"""The limits of the machine: echo.c, with and without an audit record before each reply."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.bench import journal
from tests.bench.broker import GET
from tests.bench.generator import Target

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.bench.contestant import Place


@contextlib.contextmanager
def plain(place: Place, reply_bytes: int) -> Iterator[Target]:
    """A C server that answers `reply_bytes` bytes to each line."""
    with _server(place, "echo", str(reply_bytes)) as (target, _):
        yield target


@contextlib.contextmanager
def audited(place: Place, reply_bytes: int, like: dict[str, str]) -> Iterator[Target]:
    """The same, with a record that has the fields of `like` handed to journald before each reply."""
    with audited_process(place, reply_bytes, like) as (target, _):
        yield target


@contextlib.contextmanager
def audited_process(
    place: Place, reply_bytes: int, like: dict[str, str]
) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    """`audited`, and its process."""
    record = journal.record(place, like)
    with _server(place, "echo-audited", str(reply_bytes), journal.SOCKET, str(record)) as both:
        yield both


@contextlib.contextmanager
def _server(place: Place, name: str, *arguments: str) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    path = place.work / f"{name}.sock"
    try:
        with place.server([str(place.programs.echo), str(path), *arguments], path) as process:
            yield Target(str(path), GET, expect="."), process
    finally:
        path.unlink(missing_ok=True)
