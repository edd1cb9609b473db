"""The limits of the machine: echo.c, with and without an audit record before each reply; and
those of Python: least.py."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING

from tests.bench import journal
from tests.bench.broker import GET
from tests.bench.generator import Target

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.bench.contestant import Place

BROKER_UNIT = pathlib.Path(__file__).parents[2] / "units/remo-broker.service"


@contextlib.contextmanager
def plain(place: Place, reply_bytes: int) -> Iterator[Target]:
    """A C server that answers `reply_bytes` bytes to each line."""
    with _server(place, "echo", str(reply_bytes)) as (target, _):
        yield target


@contextlib.contextmanager
def audited(place: Place, reply_bytes: int, like: dict[str, str]) -> Iterator[Target]:
    """The same, with a record that has the fields of `like` handed to journald before each
    reply."""
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
def least(place: Place, reply_bytes: int, like: dict[str, str]) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    """`audited_process` in Python, with the interpreter set as the broker's."""
    path = place.work / "least.sock"
    argv = ["/usr/bin/python3", "-SsP", str(pathlib.Path(__file__).with_name("least.py")), str(path), str(reply_bytes)]
    lines = BROKER_UNIT.read_text().splitlines()
    env = dict(line.split("=", 2)[1:] for line in lines if line.startswith("Environment="))
    record = journal.record(place, like)
    with place.server([*argv, journal.SOCKET, str(record)], path, env) as process:
        yield Target(str(path), GET, expect="."), process


@contextlib.contextmanager
def _server(place: Place, name: str, *arguments: str) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    path = place.work / f"{name}.sock"
    try:
        with place.server([str(place.programs.echo), str(path), *arguments], path) as process:
            yield Target(str(path), GET, expect="."), process
    finally:
        path.unlink(missing_ok=True)
