"""No value is left in the broker's memory that should not be there (requirements M1, M2 and F1), seen by root from outside.

Most of it runs on the fallback, locked memory that root can read: there whatever is not overwritten is found, while
`memfd_secret(2)` would hide it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.connection import PEER_SECONDS, SWEEP_SECONDS
from remo_broker.messages import MAX_MESSAGE, MAX_PUSH
from tests.support.broker import Broker, Link, registration, settle, short_directory
from tests.support.machine import poll
from tests.support.scanner import LENGTHS, Findings, Scanner, Secrets, awkward, forms, make_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import StartBroker

SECRETS = 1000
# As many as a manifest of 64 KiB could name, and more.
NAMES = tuple(f"S{number}" for number in range(SECRETS))


@pytest.fixture(scope="module")
def fallback(without_memfd_secret: tuple[str, ...]) -> Iterator[Broker]:
    """A broker whose secret memory can be read, for tests that change nothing for each other."""
    with short_directory() as directory:
        broker = Broker(
            directory,
            projects=[registration("myrepo", *NAMES)],
            rate_limit_per_second=0,
            through=without_memfd_secret,
        )
        with contextlib.closing(broker):
            broker.start()
            assert broker.status()["memory_protection"] == "mlock"
            yield broker


@pytest.fixture
def look(scanner: Scanner, fallback: Broker) -> Iterator[Callable[[list[str | bytes]], Findings]]:
    """Scans the shared broker; afterwards its store is empty."""
    yield lambda values: scanner.scan(fallback.pid, values)
    fallback.ask({"op": "clear-creds"})


def fetch_all(broker: Broker, secrets: Secrets) -> None:
    with Link(broker.project()) as link:
        for name in secrets.names:
            reply = link.ask({"op": "get", "name": name})
            assert reply["ok"]


def assert_one_copy_each(findings: Findings, count: int) -> None:
    assert all(hit.whole for hit in findings.hits)
    copies = Counter(hit.value for hit in findings.hits)
    assert sorted(copies) == list(range(count))
    assert set(copies.values()) == {1}


# --- loaded, fetched, cleared, replaced


def test_memfd_secret_hides_everything(scanner: Scanner, start_broker: StartBroker) -> None:
    """A thousand secrets, pushed and fetched: nobody reads one of them, and nothing is left of what carried them."""
    broker = start_broker(projects=[registration("myrepo", *NAMES)], rate_limit_per_second=0)
    if broker.status()["memory_protection"] != "memfd_secret":
        pytest.skip("this kernel has no memfd_secret(2)")
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
    # Replaced in one step, nothing is left of what was there.
    assert fallback.ask(others.line(ascii_only=ascii_only))["ok"]
    assert not look(secrets.values).hits
    assert_one_copy_each(look(others.values), len(others.values))
    fetch_all(fallback, others)
    assert fallback.ask({"op": "clear-creds"})["ok"]
    assert not look(secrets.values + others.values).hits
    assert_not_written(fallback, secrets.values + others.values)


def test_whatever_stands_around_the_secrets(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """Keys in another order, unknown fields with values, spaces: it is one push, and gone with the next."""
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
    """What follows a push in the same read moves to memory of its own; nothing of it stays behind."""
    first, second, third = (make_secrets(300, f"pipelined {number}") for number in range(3))
    with Link(fallback.admin) as link:
        link.send(b'{"op":"status"}\n' + first.line() + second.line() + third.line() + b'{"op":"status"}\n')
        assert [link.reply().get("secret_count") for _ in range(5)][1:] == [300] * 4
    assert_one_copy_each(look(third.values), len(third.values))
    assert not look(first.values + second.values).hits


def test_refused_push_behind_a_push(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """It was received into the memory that the store keeps, and has no business there."""
    taken, refused = make_secrets(100, "taken"), make_secrets(100, "refused")
    with Link(fallback.admin) as link:
        link.send(taken.line() + refused.line()[:-3] + b"\n")
        assert [link.reply()["ok"] for _ in range(2)] == [True, False]
        assert_one_copy_each(look(taken.values), len(taken.values))
        assert not look(refused.values).hits


def test_refused_push_before_an_unfinished_line(
    fallback: Broker, look: Callable[[list[str | bytes]], Findings]
) -> None:
    """The connection keeps its memory for what follows, and not what went before."""
    refused = make_secrets(100, "before")
    with Link(fallback.admin) as link:
        link.send(refused.line()[:-3] + b'\n{"op":')
        assert not link.reply()["ok"]
        assert not look(refused.values).hits


def test_unfinished_push_moves_to_the_front(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """So that there is room for the longest; it leaves no copy where it was."""
    unfinished = make_secrets(100, "unfinished")
    with Link(fallback.admin) as link:
        # Short of its last brackets too: what only lacks the newline is a push when the connection ends.
        link.send(b'{"op":"status","x":"' + b"x" * 60_000 + b'"}\n' + unfinished.line()[:-3])
        assert link.reply()["ok"]
        assert_one_copy_each(look(unfinished.values), len(unfinished.values))


# --- refused

Refusal = tuple[bytes, str]


def refused_pushes(values: list[str]) -> dict[str, Refusal]:
    """Every way in which a push is refused, each with values in it, and the code that it is refused with."""
    filling: dict[str, Any] = {f"V{number}": value for number, value in enumerate(values)}
    good = json.dumps({"op": "push-creds", "secrets": filling}).encode()

    def push(secrets: object, **fields: object) -> bytes:
        return json.dumps({"op": "push-creds", "secrets": secrets, **fields}).encode()

    twice = good[:-2] + b"," + json.dumps({"V0": values[0]}).encode()[1:] + b"}"
    plain_value = values[0]
    return {
        "bad JSON at the end": (good[:-2] + b",}}", "protocol_error"),
        "cut short": (good[:-3], "protocol_error"),
        "something behind it": (good + b'{"x":' + json.dumps(plain_value).encode() + b"}", "protocol_error"),
        "bad UTF-8 at the end": (good[:-3] + b'\xff"}}', "protocol_error"),
        "control character in a value": (good[:-3] + b'\x01"}}', "protocol_error"),
        "lone surrogate in a value": (good[:-3] + b'\\ud800"}}', "protocol_error"),
        "byte-order mark": (b"\xef\xbb\xbf" + good, "protocol_error"),
        "too deep": (push(filling | {"deep": json.loads("[" * 20 + "]" * 20)}), "protocol_error"),
        "a name twice": (twice, "protocol_error"),
        "a field twice": (
            good[:-2] + b',"B":{"f":"1","f":' + json.dumps(plain_value).encode() + b"}}}",
            "protocol_error",
        ),
        "a value for a key, twice": (
            good[:-2] + b',"B":{%b:"","f":"",%b:""}}}' % ((json.dumps(values[-1]).encode(),) * 2),
            "protocol_error",
        ),
        "in both": (push(filling, secrets_b64={"V0": "AAAA"}), "invalid_payload"),
        "bad name": (push(filling | {"not-a-name": values[1]}), "invalid_payload"),
        "a value for a name": (push(filling | {values[-1]: "x"}), "invalid_payload"),
        "bad field name": (push(filling | {"B": {"a b": values[1]}}), "invalid_payload"),
        "a value for a field name": (push(filling | {"B": {values[-1]: values[1]}}), "invalid_payload"),
        "a list for a value": (push(filling | {"B": [values[1]]}), "invalid_payload"),
        "a number for a value": (push(filling | {"B": 12}), "invalid_payload"),
        "a list for a field": (push(filling | {"B": {"a": [values[1]]}}), "invalid_payload"),
        "nested bundle behind a good one": (
            push({"A": {"a": values[1], "b": values[-1]}, "B": {"a": {"b": values[1]}}}),
            "invalid_payload",
        ),
        "bad base64": (push(filling, secrets_b64={"B": values[-1]}), "invalid_payload"),
        "base64 without padding": (
            push(filling, secrets_b64={"B": base64.b64encode(plain_value.encode() + b"a").decode().rstrip("=")}),
            "invalid_payload",
        ),
        "a value too long": (
            push(filling | {"B": plain_value * (MAX_MESSAGE // len(plain_value) + 1)}),
            "invalid_payload",
        ),
        "a bundle too long": (
            push(filling | {"B": {f"f{number}": value for number, value in enumerate(values * 30)}}),
            "invalid_payload",
        ),
        "too long": (push(filling | {"B": plain_value * (MAX_PUSH // len(plain_value))}), "payload_too_large"),
        "no object": (push(values), "protocol_error"),
        "the values alone": (json.dumps(filling).encode(), "protocol_error"),
        "a value alone": (json.dumps(plain_value).encode(), "protocol_error"),
        "no JSON at all": (plain_value.encode() + values[-1].encode().replace(b"\n", b" "), "protocol_error"),
        "unknown op": (good.replace(b'"push-creds"', b'"push-cred"'), "protocol_error"),
        "op not a string": (good.replace(b'"push-creds"', b"1"), "protocol_error"),
        "a value for an op": (good.replace(b'"push-creds"', json.dumps(values[-1]).encode()), "protocol_error"),
        "another op": (
            good.replace(b'"push-creds"', b'"show","name":' + json.dumps(values[-1]).encode()),
            "project_unknown",
        ),
        "another op, too long": (
            good.replace(b'"push-creds"', b'"status","x":"' + plain_value.encode() * 200 + b'"'),
            "protocol_error",
        ),
        "another op with a value for a path": (
            good.replace(b'"push-creds"', b'"register","name":"x","project_path":' + json.dumps(values[-1]).encode()),
            "protocol_error",
        ),
    }


REFUSALS = tuple(refused_pushes([plain(random.Random(0), 400)] * 6))


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_push(fallback: Broker, look: Callable[[list[str | bytes]], Findings], kind: str) -> None:
    random_ = random.Random(kind)
    values = [plain(random_, 400), *(awkward(random_, length) for length in LENGTHS[1:]), plain(random_, 8)]
    values.append(awkward(random_, 250))
    line, code = refused_pushes(values)[kind]
    with Link(fallback.admin) as link:
        link.send(line + b"\n")
        answer = link.line()
        assert json.loads(answer)["code"] == code
        assert not look(list(values)).hits
    assert not any(form in answer for value in values for _, form in forms(value))
    assert fallback.status()["secret_count"] == 0
    assert_not_written(fallback, list(values))


# --- vanished


@pytest.mark.parametrize("end", ["close", "half-close", "silence"])
def test_vanished_in_mid_push(fallback: Broker, look: Callable[[list[str | bytes]], Findings], end: str) -> None:
    secrets = make_secrets(200, end)
    line = secrets.line()
    with Link(fallback.admin) as link:
        link.send(line[: len(line) * 2 // 3])
        poll("the push to arrive", lambda: look(secrets.values).hits)
        if end == "close":
            link.close()
        elif end == "half-close":
            link.say_no_more()
            assert link.reply()["code"] == "protocol_error"
        else:
            assert link.reply()["reason"] == "too_slow"
        poll("the memory to be overwritten", lambda: not look(secrets.values).hits)
    assert fallback.status()["secret_count"] == 0


def test_vanished_in_mid_answer(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """Who stops reading holds what he is being sent for `PEER_SECONDS`, and not the others."""
    random_ = random.Random("reader")
    values: list[str | bytes] = [plain(random_, 4000) for _ in range(8)]
    push = {"op": "push-creds", "secrets": {f"S{number}": value for number, value in enumerate(values)}}
    assert fallback.ask(push)["ok"]
    with Link(fallback.project()) as stuck, Link(fallback.project()) as fine:
        stuck.send(b"".join(b'{"op":"get","name":"S%d"}\n' % (number % 8) for number in range(400)))
        poll("the reader to be stuck", lambda: fallback.status()["projects"][0]["fetches_allowed"] >= 60)
        settle(0.1)
        assert fine.ask({"op": "get", "name": "S0"})["value"] == values[0]
        assert fallback.ask({"op": "clear-creds"})["ok"]
        assert fine.ask({"op": "get", "name": "S0"})["reason"] == "no_snapshot"
        assert_one_copy_each(look(values), len(values))
        poll("the memory to be overwritten", lambda: not look(values).hits, PEER_SECONDS + SWEEP_SECONDS + 5)


def test_reader_that_leaves_in_mid_answer(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    random_ = random.Random("leaver")
    values: list[str | bytes] = [plain(random_, 4000)]
    assert fallback.ask({"op": "push-creds", "secrets": {"S0": values[0]}})["ok"]
    stuck = Link(fallback.project())
    stuck.send(b'{"op":"get","name":"S0"}\n' * 400)
    settle(0.1)
    assert fallback.ask({"op": "clear-creds"})["ok"]
    assert_one_copy_each(look(values), 1)
    stuck.close()
    poll("the memory to be overwritten", lambda: not look(values).hits, 2)


def test_reader_that_catches_up(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """He is answered from the snapshot that he began with, and when he has all of it, it goes."""
    random_ = random.Random("late")
    values: list[str | bytes] = [plain(random_, 4000)]
    assert fallback.ask({"op": "push-creds", "secrets": {"S0": values[0]}})["ok"]
    with Link(fallback.project()) as late:
        late.send(b'{"op":"get","name":"S0"}\n' * 100)
        settle(0.1)
        assert fallback.ask({"op": "clear-creds"})["ok"]
        assert_one_copy_each(look(values), 1)
        answers = [late.reply() for _ in range(100)]
        served = [answer for answer in answers if answer["ok"]]
        assert len(served) > 10
        assert all(answer["value"] == values[0] for answer in served)
        poll("the memory to be overwritten", lambda: not look(values).hits, 2)
        assert late.ask({"op": "ping"})["ok"]


# --- what Python would leave


def test_freed_heap_is_overwritten(fallback: Broker, look: Callable[[list[str | bytes]], Findings]) -> None:
    """A token that somebody sends where none belongs goes through ordinary objects; they are overwritten when freed."""
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
    """Why the allocator's settings are there. The broker says so where they are not in force."""
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


def assert_not_written(broker: Broker, values: list[str | bytes]) -> None:
    """Nor is a value in a file of the broker, its log, its environment or its arguments."""
    process = pathlib.Path(f"/proc/{broker.pid}")
    written = [process / "environ", process / "cmdline", broker.log, *broker.state.iterdir()]
    text = b"\0".join(path.read_bytes() for path in written)
    # Not all of a thousand: the log has a record for each fetch.
    assert not [name for value in values[:: len(values) // 50 + 1] for name, form in forms(value) if form in text]
