from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.manifests import project

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["nothing_stays_open", "project"]


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    """The test leaves no descriptor open."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before
