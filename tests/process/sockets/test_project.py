"""The project socket."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import WAIT_SECONDS, Broker, Link, ask, registration
from tests.support.machine import poll

if TYPE_CHECKING:
    from tests.conftest import StartBroker

GET = b'{"op":"get","name":"GITHUB_TOKEN"}\n'


def test_every_spelling_of_the_same_get(client: Link, shared: Broker) -> None:
    """Known lines are recognised by their bytes, which must make no difference."""
    spellings = [
        GET,
        b'{"name":"GITHUB_TOKEN","op":"get"}\n',
        b' {"op" : "get" , "name" : "GITHUB_TOKEN" } \r\n',
        b'{"op":"\\u0067et","n\\u0061me":"GITHUB\\u005fTOKEN"}\n',
        b'{"op":"get","name":"GITHUB_TOKEN","version":3,"x":{"name":"aws"}}\n',
    ]
    for _ in range(3):
        for line in spellings:
            answer = client.ask(line)
            assert (answer["value"], answer["generation"]) == ("ghp_example", 1)
    client.send(GET[:-1])
    client.say_no_more()
    assert json.loads(client.rest())["value"] == "ghp_example"


def test_bundle_and_binary(client: Link) -> None:
    bundle = client.ask({"op": "get", "name": "aws"})
    assert bundle["value"] == '{"aws_access_key_id":"AKIAEXAMPLE","aws_secret_access_key":"wJalr"}'
    binary = client.ask({"op": "get", "name": "KEYSTORE"})
    assert binary["value_b64"] == "3q2+7w=="
    assert "value" not in binary


@pytest.mark.parametrize("name", ["", "a b", "A" * 129, "A" * 60_000, "é", "x\n", "\x1b[31m", "../x", "\U0001f511"])
def test_an_invalid_name_is_refused(client: Link, name: str) -> None:
    answer = client.ask({"op": "get", "name": name})
    assert (answer["code"], answer["reason"]) == ("denied", "invalid_name")
    assert not name or name not in answer["message"]


def test_a_denial_has_the_same_bytes_whatever_the_broker_holds(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A"), registration("other", "B")])
    with Link(broker.project()) as client:

        def answer() -> bytes:
            client.send({"op": "get", "name": "B"})
            return client.line()

        before = answer()
        broker.push({"A": "a"})
        without = answer()
        broker.push({"A": "a", "B": "b"})
        with_it = answer()
        assert broker.get("B", "other")["value"] == "b"  # the broker holds it, and another project gets it
        served = answer()
        broker.ask({"op": "clear-creds"})
        assert {before, without, with_it, served, answer()} == {before}
    assert broker.get("A", "other")["reason"] == "not_in_manifest"


def test_an_empty_allowlist_denies_everything(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo")])
    broker.push({"A": "a"})
    assert broker.get("A")["reason"] == "not_in_manifest"
    assert ask(broker.project(), {"op": "info"})["allowlist"] == []


def test_reasons_before_a_push_and_after_a_clear(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A", "B")])
    with Link(broker.project()) as client:

        def reason(name: str = "A") -> tuple[object, object]:
            answer = client.ask({"op": "get", "name": name})
            return answer.get("reason"), answer.get("retry_after_seconds")

        assert client.ask({"op": "ready"}) == {"ok": True, "ready": False, "generation": 0}
        assert reason() == ("no_snapshot", 1)
        broker.push({})
        assert client.ask({"op": "ready"}) == {"ok": True, "ready": True, "generation": 1}
        assert reason() == ("not_in_snapshot", None)
        broker.push({"A": "a"})
        assert reason() == (None, None)
        assert reason("B") == ("not_in_snapshot", None)
        broker.push({"B": "b"})
        assert reason() == ("not_in_snapshot", None)
        assert reason("B") == (None, None)
        broker.ask({"op": "clear-creds"})
        assert reason("B") == ("no_snapshot", 1)
        assert client.ask({"op": "ready"}) == {"ok": True, "ready": False, "generation": 3}
    assert broker.status()["projects"][0]["cache_entries"] == 0


def test_an_expired_lease_is_renewed(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A", ttl_seconds=1)])
    broker.push({"A": "a"})
    with Link(broker.project()) as client:

        def left() -> int:
            seconds = client.ask({"op": "get", "name": "A"})["ttl_seconds"]
            assert isinstance(seconds, int)
            return seconds

        assert left() == 1
        assert left() == 0  # rounded down
        poll("the next lease", lambda: left() == 1)
    backends = [one["REMO_BACKEND"] for one in broker.records("fetch")]
    assert backends.count("store") == 2
    assert backends[0] == backends[-1] == "store"


def test_leases_are_limited_and_counted(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", *"ABC", ttl_seconds=600, max_entries=2)])
    broker.push(dict.fromkeys("ABC", "x"))
    for name in "ABCBA":
        assert broker.get(name)["ttl_seconds"] in (599, 600)
    assert [(one["REMO_SECRET"], one["REMO_BACKEND"]) for one in broker.records("fetch")] == [
        ("A", "store"),
        ("B", "store"),
        ("C", "store"),  # the oldest, A's, leaves
        ("B", "cache"),
        ("A", "store"),
    ]
    assert broker.status()["projects"][0]["cache_entries"] == 2
    broker.push({"A": "x"})
    assert broker.status()["projects"][0]["cache_entries"] == 0


def test_the_brokers_limits_apply_to_earlier_registrations(start_broker: StartBroker) -> None:
    broker = start_broker(
        projects=[registration("myrepo", "A", ttl_seconds=900, max_entries=64)],
        cache_default_ttl_seconds=30,
        cache_default_max_entries=8,
    )
    broker.push({"A": "a"})
    assert broker.get("A")["ttl_seconds"] == 30
    shown = broker.ask({"op": "show", "name": "myrepo"})
    assert (shown["ttl_seconds"], shown["max_entries"]) == (30, 8)


def test_no_client_sees_a_mix_of_two_pushes(start_broker: StartBroker) -> None:
    """Twenty clients read while the store is replaced: every reply belongs to the generation that
    it names, and both fields of the bundle come from one push."""
    names = ["A", "B", "bundle", "KEY"]
    broker = start_broker(projects=[registration("myrepo", *names)], rate_limit_per_second=0)
    pushes, to_be_seen = 150, 10

    def push(marker: int) -> None:
        text = f"{marker:04d}"
        filler = "x" * (30_000 if marker % 2 else 10)
        broker.push({"A": text + filler, "B": text, "bundle": {"one": text + filler, "two": text}}, KEY=text)

    push(1)
    wrong: list[object] = []
    seen: set[int] = set()
    done = threading.Event()

    def read() -> None:
        lines = b"".join(json.dumps({"op": "get", "name": name}).encode() + b"\n" for name in names)
        with Link(broker.project()) as client:
            last = 0
            while not done.is_set():
                client.send(lines)
                for name in names:
                    answer = client.reply()
                    marker = answer["generation"]
                    value = answer.get("value") or answer["value_b64"]
                    parts = json.loads(value).values() if name == "bundle" else [value]
                    if any(int(part[:4]) != marker for part in parts) or marker < last:
                        wrong.append((name, marker, last))
                    last = marker
                    seen.add(marker)

    readers = [threading.Thread(target=read) for _ in range(20)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + WAIT_SECONDS
    for marker in itertools.count(2):
        push(marker)
        if (marker >= pushes and len(seen) > to_be_seen) or time.monotonic() > end:
            break
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(seen) > to_be_seen


def test_a_reply_in_progress_is_finished_from_its_snapshot(start_broker: StartBroker) -> None:
    """A client that stops reading during a reply gets the rest after the store was replaced."""
    broker = start_broker(projects=[registration("myrepo", "A")])
    old = "old" * 20_000
    broker.push({"A": old})
    with Link(broker.project()) as client:
        client.send(b'{"op":"get","name":"A"}\n' * 10)  # more than the kernel buffers
        poll("the gets to be under way", lambda: len(broker.records("fetch")) >= 3)
        broker.push({"A": "new"})
        broker.ask({"op": "clear-creds"})
        values = [client.reply() for _ in range(10)]
        whole = [one["value"] for one in values if one["ok"]]
        assert whole[:3] == [old] * 3
        assert set(whole) == {old}
        assert all(one["reason"] == "no_snapshot" for one in values[len(whole) :])


def test_requests_other_than_get_are_not_audited(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")])
    with Link(broker.project()) as client:
        for request in ({"op": "ping"}, {"op": "info"}, {"op": "ready"}, {"op": "get"}, {"op": "x"}, b"\n"):
            client.ask(request)
        client.ask({"op": "get", "name": "A"})
    assert len(broker.records("fetch")) == 1
