"""What a push changes, by name, as compared in secret memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker.secrets.memory import Arena, RegionHolder
from remo_broker.broker.secrets.store import Store
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.protocol.shared_limits import MAX_NAMED

if TYPE_CHECKING:
    from collections.abc import Generator

    from remo_broker.protocol.replies import PushChanges


@pytest.fixture
def store() -> Store:
    return Store(Arena(use_memfd_secret=False), 900)


def steps(store: Store, **push: Any) -> Generator[None, None, Any]:
    holder = RegionHolder(store.arena)
    region = holder.fill()
    line = json.dumps(push).encode()
    region.view[: len(line)] = line
    region.used = len(line)
    members = finish(scan(region.view, 0, len(line)))[3]
    return store.load(holder, members.get("secrets"), members.get("secrets_b64"), 1, changes=True)


def changes(store: Store, **push: Any) -> PushChanges:
    found: PushChanges | None = finish(steps(store, **push)).changes
    assert found is not None
    return found


def named(found: PushChanges) -> tuple[list[str], list[str], list[str]]:
    counts = (found.added_count, found.removed_count, found.changed_count)
    assert counts == tuple(map(len, (found.added_names, found.removed_names, found.changed_names)))
    return found.added_names, found.removed_names, found.changed_names


def test_each_kind_of_change(store: Store) -> None:
    assert named(changes(store, secrets={"A": "1", "B": {"x": "1"}}, secrets_b64={"C": "AA=="})) == (
        ["A", "B", "C"],
        [],
        [],
    )
    assert named(changes(store, secrets={"A": "1", "B": {"x": "1"}}, secrets_b64={"C": "AA=="})) == ([], [], [])
    assert named(changes(store, secrets={"A": "2", "B": {"x": "2"}}, secrets_b64={"C": "AQ=="})) == (
        [],
        [],
        ["A", "B", "C"],
    )
    assert named(changes(store, secrets={"A": "2", "D": "1"})) == (["D"], ["B", "C"], [])
    store.clear()
    assert named(changes(store, secrets={"A": "2"})) == (["A"], [], [])


def test_the_same_characters_as_text_and_as_base64_differ(store: Store) -> None:
    changes(store, secrets={"A": "AA=="})
    assert named(changes(store, secrets_b64={"A": "AA=="})) == ([], [], ["A"])


def test_the_lists_are_bounded_and_the_counts_are_complete(store: Store) -> None:
    found = changes(store, secrets={f"N{number}": "x" for number in range(1000)})
    assert (found.added_count, len(found.added_names)) == (1000, MAX_NAMED)


@pytest.mark.parametrize("meanwhile", ["pushed", "cleared"])
def test_a_push_is_compared_with_the_snapshot_that_it_replaces(store: Store, meanwhile: str) -> None:
    many = {f"N{number}": "x" for number in range(5000)}
    changes(store, secrets=many)
    first = steps(store, secrets=many)
    for _ in range(12):  # into the comparison
        next(first)
    if meanwhile == "pushed":
        changes(store, secrets={"N0": "x"})
    else:
        store.clear()
    found = finish(first).changes
    assert found.added_count == (4999 if meanwhile == "pushed" else 5000)


def test_the_comparison_runs_in_steps(store: Store) -> None:
    """A long value counts for more than a short one."""
    many = {f"N{number}": "x" * 2000 for number in range(400)}
    changes(store, secrets=many)
    assert sum(1 for _ in steps(store, secrets=many)) >= 400 * 2000 // 512 // 512
