"""The defects of `./run mutants` can be planted: each row still names a text of the tree and a
test."""

from __future__ import annotations

import re

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.table import MUTANTS
from tests.support.machine import REPOSITORY


@pytest.mark.parametrize("row", MUTANTS, ids=lambda row: f"{row.file}-{row.test.partition('::')[2]}")
def test_a_row_applies(row: Mutant) -> None:
    assert (REPOSITORY / row.file).read_text().count(row.old) == 1
    assert row.new != row.old
    file, _, name = row.test.partition("::")
    tests = REPOSITORY / file
    assert tests.exists()
    if name:
        assert re.search(rf"^def {re.escape(name.partition('[')[0])}\(", tests.read_text(), re.MULTILINE)


def test_no_row_stands_twice() -> None:
    assert len(set(MUTANTS)) == len(MUTANTS)
