"""SECURITY.md promises what tests show: every test that it names is there, and of each promise at
least one is shown to fail without it."""

from __future__ import annotations

import fnmatch
import re

import pytest

from tests.mutants.table import MUTANTS
from tests.support.machine import REPOSITORY

TEXT = (REPOSITORY / "SECURITY.md").read_text()
TEST = re.compile(r"`([\w/]+/test_\w+\.py)::([\w*]+)`")
NAMED = sorted(set(TEST.findall(TEXT)))
PROMISES = dict(re.findall(r"^\| (.+?) \| (`.+`) \|$", TEXT, re.MULTILINE))


def test_tests_are_named() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_it_exists(file: str, name: str) -> None:
    defined = re.findall(r"^def (test_\w+)\(", (REPOSITORY / "tests" / file).read_text(), re.MULTILINE)
    assert fnmatch.filter(defined, name)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_defect_is_planted_behind_it(promise: str) -> None:
    """`./run mutants` shows that the test fails then."""

    def is_named(test: str) -> bool:
        file, _, name = test.removeprefix("tests/").partition("::")
        return any(
            file == its_file and (not name or fnmatch.fnmatch(name.partition("[")[0], its_name))
            for its_file, its_name in TEST.findall(PROMISES[promise])
        )

    assert [row for row in MUTANTS if is_named(row.test)]
