from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.manifests import project
from tests.support.played_helpers import Helpers

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

__all__ = ["project"]


@pytest.fixture
def helpers(directory: pathlib.Path) -> Iterator[Helpers]:
    with contextlib.closing(Helpers(directory / "s")) as helpers:
        yield helpers
