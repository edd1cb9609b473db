"""No value remains in the broker's memory that should not be there, as seen by root from outside.

Most of it runs on the fallback, locked memory that root can read: there, anything not overwritten
is found, while `memfd_secret(2)` would hide it.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.process.memory.traces import NAMES, SECRETS, assert_not_written, assert_one_copy_each, fetch_all, handled
from tests.support.broker import Broker, Link, registration
from tests.support.host_memory import require_memfd_secret
from tests.support.scanner import LENGTHS, Findings, Scanner, awkward, make_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartBroker


# --- loaded, fetched, cleared, replaced


def test_memfd_secret_hides_everything(scanner: Scanner, start_broker: StartBroker) -> None:
    """A thousand secrets, pushed and fetched: none can be read, and nothing remains of the buffers
    that carried them."""
    broker = start_broker(projects=[registration("myrepo", *NAMES)], rate_limit_per_second=0)
    require_memfd_secret()
    secrets, others = make_secrets(SECRETS, "hidden"), make_secrets(SECRETS, "other")
    before = scanner.scan(broker.pid, secrets.values)
    with Link(broker.admin) as link:
        link.send(secrets.line())
        assert link.reply()["secret_count"] == SECRETS
    fetch_all(broker, secrets)
    loaded = scanner.scan(broker.pid, secrets.values)
    assert not loaded.hits
    assert loaded.unreadable_bytes > before.unreadable_bytes
    broker.ask(others.line())
    fetch_all(broker, others)
    assert not scanner.scan(broker.pid, secrets.values + others.values).hits
    broker.ask({"op": "clear-creds"})
    assert not scanner.scan(broker.pid, secrets.values + others.values).hits
    assert_not_written(broker, secrets.values)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_fallback_keeps_one_copy(
    fallback: Broker, look: Callable[[list[str | bytes]], Findings], *, ascii_only: bool
) -> None:
    secrets, others = make_secrets(SECRETS, f"one {ascii_only}"), make_secrets(SECRETS, f"two {ascii_only}")
    assert fallback.ask(secrets.line(ascii_only=ascii_only))["ok"]
    assert_one_copy_each(look(secrets.values), len(secrets.values))
    fetch_all(fallback, secrets)
    assert_one_copy_each(look(secrets.values), len(secrets.values))
    # After the replacement, nothing remains of the old snapshot.
    assert fallback.ask(others.line(ascii_only=ascii_only))["ok"]
    assert not look(secrets.values).hits
    assert_one_copy_each(look(others.values), len(others.values))
    fetch_all(fallback, others)
    assert fallback.ask({"op": "clear-creds"})["ok"]
    assert not look(secrets.values + others.values).hits
    assert_not_written(fallback, secrets.values + others.values)


def test_unusual_text_around_the_secrets(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """Keys in another order, unknown fields with values, spaces: all of it is gone after the next
    push."""
    random_ = random.Random("around")
    values: list[str | bytes] = [*(plain(random_, 64) for _ in range(6)), *(awkward(random_, 400) for _ in range(2))]
    push = {
        "comment": values[0],
        "secrets_b64": {"S1": base64.b64encode(str(values[1]).encode()).decode()},
        "nested": {"list": [values[2], {"deeper": values[3]}]},
        "secrets": {"S2": {"a": values[4], "b": values[6]}, "S3": values[5], "S4": {}},
        "op": "push-creds",
        values[7]: None,
    }
    assert fallback.ask(json.dumps(push, indent="\t").replace("\n", " ").encode() + b"\n")["ok"]
    assert fallback.get("S3")["value"] == values[5]
    counted = Counter(hit.value for hit in look(values).hits)
    assert set(counted.values()) == {1}
    assert fallback.ask({"op": "push-creds", "secrets": {}})["ok"]
    assert not look(values).hits


def test_pipelined_pushes(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """Data after a push in the same read moves to separate memory, and no copy remains."""
    first, second, third = (make_secrets(300, f"pipelined {number}") for number in range(3))
    with Link(fallback.admin) as link:
        link.send(b'{"op":"status"}\n' + first.line() + second.line() + third.line() + b'{"op":"status"}\n')
        assert [link.reply().get("secret_count") for _ in range(5)][1:] == [300] * 4
    assert_one_copy_each(look(third.values), len(third.values))
    assert not look(first.values + second.values).hits


def test_unfinished_push_moves_to_the_front(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """This makes room for the longest push, and leaves no copy in the old place."""
    unfinished = make_secrets(100, "unfinished")
    with Link(fallback.admin) as link:
        # Without its last brackets: a push that lacks only the newline is complete when the
        # connection ends.
        link.send(b'{"op":"status","x":"' + b"x" * 60_000 + b'"}\n' + unfinished.line()[:-3])
        assert link.reply()["ok"]
        handled(fallback, link)
        assert_one_copy_each(look(unfinished.values), len(unfinished.values))


# --- what Python would leave


def test_freed_heap_is_overwritten(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """A token sent in the wrong place goes through ordinary objects, which are overwritten when
    freed."""
    random_ = random.Random("heap")
    values: list[str | bytes] = [awkward(random_, length) for length in LENGTHS if length > 8]
    with Link(fallback.project()) as link:
        for value in values:
            link.ask({"op": "get", "name": "MISSING", "token": value})
            link.ask({"op": value})
            link.ask([value])
    assert not look(values).hits


def test_freed_heap_is_not_overwritten_by_itself(
    scanner: Scanner, start_broker: StartBroker, without_memfd_secret: tuple[str, ...]
) -> None:
    """This shows that the allocator's settings are needed. The broker reports if they are not in
    force."""
    broker = start_broker(
        projects=[registration("myrepo", "A")],
        environment={"PYTHONMALLOC": "", "GLIBC_TUNABLES": "", "REMO_BROKER_REEXECUTED": "1"},
        through=without_memfd_secret,
    )
    random_ = random.Random("heap")
    values: list[str | bytes] = [awkward(random_, length) for length in LENGTHS if length > 8]
    with Link(broker.project()) as link:
        for value in values:
            link.ask({"op": value})
    assert scanner.scan(broker.pid, values).hits
    assert any("Freed memory is not overwritten" in note for note in broker.notes())
