"""Fixtures for parts of the broker that run in the test's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit import identity
from remo_broker.broker.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that prints the bugs reported to it."""
    loop = Loop(print)
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def _no_files_of_a_peer(_leaves_nothing_behind: None) -> Iterator[None]:
    """Close the /proc files of the last peer, which the broker keeps open."""
    yield
    identity._last.close()
