"""The scanner, and what it takes to use it."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

import pytest

from tests.support.machine import unavailable
from tests.support.scanner import Scanner

WITHOUT_MEMFD_SECRET = pathlib.Path(__file__).parents[1] / "support" / "without_memfd_secret.py"


@pytest.fixture(scope="session")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Scanner:
    if os.geteuid() != 0:
        unavailable("reading another process's memory takes root")
    if shutil.which("cc") is None:
        unavailable("no C compiler, for the scanner")
    return Scanner(tmp_path_factory.mktemp("scanner"))


@pytest.fixture(scope="session")
def without_memfd_secret() -> tuple[str, ...]:
    """The command that runs another on a kernel that seems to lack memfd_secret(2)."""
    return (sys.executable, str(WITHOUT_MEMFD_SECRET))
