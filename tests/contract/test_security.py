"""SECURITY.md promises what tests show: every test that it names is there."""

from __future__ import annotations

import fnmatch
import re

import pytest

from tests.support.machine import REPOSITORY

NAMED = sorted(set(re.findall(r"`([\w/]+/test_\w+\.py)::([\w*]+)`", (REPOSITORY / "SECURITY.md").read_text())))


def test_tests_are_named() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_it_exists(file: str, name: str) -> None:
    defined = re.findall(r"^def (test_\w+)\(", (REPOSITORY / "tests" / file).read_text(), re.MULTILINE)
    assert fnmatch.filter(defined, name)
