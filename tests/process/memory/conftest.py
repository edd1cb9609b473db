"""The scanner, and fixtures for it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.process.memory.traces import NAMES
from tests.support.broker import Broker, registration, short_directory
from tests.support.host_memory import WITHOUT_MEMFD_SECRET, has_mlock
from tests.support.machine import unavailable
from tests.support.privileges import require_tracing
from tests.support.scanner import Findings, Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Scanner:
    require_tracing()
    if shutil.which("cc") is None:
        unavailable("no C compiler, for the scanner")
    return Scanner(tmp_path_factory.mktemp("scanner"))


@pytest.fixture(scope="session")
def without_memfd_secret() -> tuple[str, ...]:
    """The command that runs another on a kernel that seems to lack memfd_secret(2)."""
    return WITHOUT_MEMFD_SECRET


@pytest.fixture(scope="module")
def fallback(without_memfd_secret: tuple[str, ...]) -> Iterator[Broker]:
    """A broker whose secret memory can be read, shared by tests that do not affect each other."""
    with short_directory() as directory:
        broker = Broker(
            directory,
            projects=[registration("myrepo", *NAMES)],
            rate_limit_per_second=0,
            through=without_memfd_secret,
        )
        with contextlib.closing(broker):
            broker.start()
            assert broker.status()["memory_protection"] == ("mlock" if has_mlock() else "none")
            yield broker


@pytest.fixture
def look(scanner: Scanner, fallback: Broker) -> Iterator[Callable[[list[str | bytes]], Findings]]:
    """Scans the shared broker; afterwards its store is empty."""
    yield lambda values: scanner.scan(fallback.pid, values)
    fallback.ask({"op": "clear-creds"})
