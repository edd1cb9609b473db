"""The audit outside systemd: JSON lines on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.floods import LONG_NAMES_BURST
from remo_broker.broker.audit.waiting import WAITING_RECORDS
from remo_broker.protocol.audit_records import Event
from remo_broker.protocol.paths import LAST_START_FILE
from tests.support.broker import Broker, Link, ask, registration
from tests.support.host_memory import of_this_host
from tests.support.machine import poll
from tests.support.stderr_pipe import Pipe

if TYPE_CHECKING:
    from tests.conftest import StartBroker

GET = b'{"op":"get","name":"A"}\n'

FETCH_FIELDS = [
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "REMO_EVENT",
    "REMO_PROJECT",
    "REMO_SECRET",
    "REMO_DECISION",
    "REMO_OUTCOME",
    "REMO_REASON",
    "REMO_GENERATION",
    "REMO_BACKEND",
    "REMO_PEER_PID",
    "REMO_PEER_UID",
    "REMO_PEER_GID",
    "REMO_LATENCY_USEC",
    "REMO_START_ID",
    "REMO_SERIAL",
]
# Fields about the process, which depend on the environment of the tests and the kernel.
IDENTITY = re.compile("REMO_PEER_(COMM|EXE|UNIT|USER_UNIT|OWNER_UID|CONTAINER|PIDFD_INODE|GONE)").fullmatch


def named(record: dict[str, str]) -> list[str]:
    return [name for name in record if not IDENTITY(name)]


def test_one_record_for_each_get_with_all_fields(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A", "B")], rate_limit_per_second=0)
    broker.push({"A": "zqMarkerqz"})
    with Link(broker.project()) as client:
        for name in ("A", "A", "B", "C", "no name"):
            client.ask({"op": "get", "name": name})
        records = broker.records("fetch")
        # Each was recorded before its reply was sent.
        assert [(one["REMO_SECRET"], one["REMO_OUTCOME"], one["REMO_REASON"]) for one in records] == [
            ("A", "ok", "in_manifest"),
            ("A", "ok", "in_manifest"),
            ("B", "not_found", "not_in_snapshot"),
            ("C", "denied", "not_in_manifest"),
            ("no name", "denied", "invalid_name"),
        ]
        client.send(GET * 500)
        for _ in range(500):
            client.reply()
        assert len(broker.records("fetch")) == 505
    for record in records[:3]:
        assert named(record) == FETCH_FIELDS
    for record in records[3:]:
        assert named(record) == [one for one in FETCH_FIELDS if one != "REMO_BACKEND"]
    assert [one["REMO_DECISION"] for one in records] == ["allow"] * 3 + ["deny"] * 2
    assert [one["PRIORITY"] for one in records] == ["6"] * 3 + ["4"] * 2
    for record in records:
        assert record["MESSAGE_ID"] == Event.FETCH.message_id
        assert record["SYSLOG_IDENTIFIER"] == "remo-broker"
        assert (record["REMO_PEER_PID"], record["REMO_PEER_UID"]) == (str(os.getpid()), str(os.getuid()))
        assert record["REMO_GENERATION"] == "1"
        assert 0 <= int(record["REMO_LATENCY_USEC"]) < 10_000_000
    assert "zqMarkerqz" not in broker.log.read_text()


def test_the_record_is_written_before_the_reply(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")], rate_limit_per_second=0)
    broker.push({"A": "a"})
    with Link(broker.project()) as client:
        for number in range(1, 200):
            client.ask(GET)
            assert broker.log.read_bytes().count(b'"fetch"') == number


@pytest.mark.parametrize(
    "name",
    [
        "A\nREMO_DECISION=allow\nREMO_OUTCOME=ok",
        'A", "REMO_DECISION": "allow',
        "\x1b[2J\x1b]0;title\x07",
        "\u202etxet",
        "\N{CYRILLIC CAPITAL LETTER A}",
        "\0" * 300,
        "A" * 60_000,
        "\\n" * 100,
        "\U0010ffff" * 200,
    ],
)
def test_no_name_forges_a_field(shared: Broker, name: str) -> None:
    before = len(shared.records("fetch"))
    ask(shared.project(), {"op": "get", "name": name})
    (record,) = shared.records("fetch")[before:]
    assert (record["REMO_DECISION"], record["REMO_OUTCOME"], record["REMO_REASON"]) == (
        "deny",
        "denied",
        "invalid_name",
    )
    assert record["REMO_SECRET"].isascii()
    assert record["REMO_SECRET"].isprintable()
    assert len(record["REMO_SECRET"]) <= 128
    assert record["MESSAGE"].isprintable()
    assert named(record) == [one for one in FETCH_FIELDS if one != "REMO_BACKEND"]


def test_denials_of_long_names_are_counted_after_the_first_few(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A" * 100, "A")], rate_limit_per_second=0)
    asked = 500
    with Link(broker.project()) as client:
        for number in range(asked):
            assert client.ask({"op": "get", "name": f"{'N' * 100}_{number}"})["reason"] == "not_in_manifest"
        # Allowed names and short ones have a record each.
        for name in ["A" * 100] * 50 + [f"S{number}" for number in range(50)]:
            client.ask({"op": "get", "name": name})
    fetched = broker.records("fetch")
    long = [one for one in fetched if one["REMO_SECRET"].startswith("N")]
    assert len(fetched) == len(long) + 100
    assert LONG_NAMES_BURST <= len(long) < asked // 2
    poll("the count", lambda: len(long) + told(broker) == asked)
    [first, *_] = broker.records("fetch.denials_counted")
    assert (first["REMO_PROJECT"], first["REMO_DECISION"], first["REMO_REASON"]) == ("myrepo", "deny", "long_names")
    assert first["REMO_PEER_UID"] == str(os.getuid())
    [status] = broker.status()["projects"]
    assert status["fetches_denied"] == asked + 50


def test_counted_denials_are_recorded_before_the_exit(start_broker: StartBroker) -> None:
    own, other = os.getuid(), os.getuid() + 1
    projects = [
        registration("slow", "A"),
        registration("long", "A"),
        registration("closed", "A", allowed_uids=[other]),
    ]
    broker = start_broker(projects=projects, rate_limit_per_second=1, rate_limit_burst=400)
    for name, secret, number in (("long", "N" * 100, 300), ("slow", "A", 500)):
        with Link(broker.project(name)) as client:
            client.send(b'{"op":"get","name":"%s"}\n' % secret.encode() * number)
            for _ in range(number):
                client.reply()
    for _ in range(3):
        assert ask(broker.project("closed"), {"op": "ping"})["reason"] == "uid_not_allowed"
    broker.stop()
    long = [one for one in broker.records("fetch") if one["REMO_SECRET"].startswith("N")]
    assert len(long) + told(broker) == 300
    slow = [one for one in broker.records("fetch") if one["REMO_PROJECT"] == "slow"]
    assert len(slow) + sum(int(one["REMO_COUNT"]) for one in broker.records("fetch.rate_limited")) == 500
    refused = broker.records("peer.refused")
    assert sum(int(one["REMO_COUNT"]) for one in refused) == 3
    assert {one["REMO_PEER_UID"] for one in refused} == {str(own)}
    assert broker.records()[-1]["REMO_EVENT"] == "broker.stopped"


def told(broker: Broker) -> int:
    return sum(int(one["REMO_COUNT"]) for one in broker.records("fetch.denials_counted"))


def test_start_and_stop(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")])
    broker.stop()
    started, stopped = (one for one in broker.records() if not of_this_host(one))
    assert (started["REMO_EVENT"], stopped["REMO_EVENT"]) == ("broker.started", "broker.stopped")
    for record in (started, stopped):
        assert record["REMO_PEER_PID"] == str(broker.pid)
        assert record["PRIORITY"] == "5"


def test_each_start_names_the_one_before(start_broker: StartBroker, directory: pathlib.Path) -> None:
    """However that ended; a file that is none of the broker's, or tells of records elsewhere, says
    nothing."""
    ids: list[tuple[str | None, str]] = []
    for end in ("stop", "kill", "damage", "link", "move", "stop"):
        broker = start_broker()
        broker.status()  # it listens before it records its start
        started = broker.records("broker.started")[-1]
        ids.append((started.get("REMO_PREVIOUS_START_ID"), started["REMO_START_ID"]))
        if end == "stop":
            broker.stop()
        else:
            broker.process.kill()
            broker.process.wait()
        (kept,) = directory.rglob(LAST_START_FILE)
        if end == "damage":
            kept.write_text("no id")
        elif end == "move":
            kept.write_text(f"{ids[-1][1]} journal:\n")
        elif end == "link":
            kept.rename(directory / "elsewhere")
            kept.symlink_to(directory / "elsewhere")
    own = [own for _, own in ids]
    assert len(set(own)) == len(own)
    assert [previous for previous, _ in ids] == [None, own[0], own[1], None, None, None]


def test_each_start_names_the_one_before_even_if_no_file_can_be_made(
    start_broker: StartBroker, directory: pathlib.Path
) -> None:
    """As on a full disk: a start that no later one names could be removed unseen."""
    ids: list[tuple[str | None, str]] = []
    for _ in range(3):
        broker = start_broker()
        broker.status()
        started = broker.records("broker.started")[-1]
        ids.append((started.get("REMO_PREVIOUS_START_ID"), started["REMO_START_ID"]))
        broker.stop()
        (kept,) = (one for one in directory.rglob(LAST_START_FILE) if one.is_file())
        kept.with_name(f"{kept.name}.new").mkdir(exist_ok=True)
    assert [previous for previous, _ in ids] == [None, ids[0][1], ids[1][1]]


# --- while no process accepts the records


def audit_status(broker: Broker) -> dict[str, object]:
    audit = broker.status()["audit"]
    assert isinstance(audit, dict)
    return audit


def counts(audit: dict[str, object]) -> tuple[object, ...]:
    return audit["healthy"], audit["queued"], audit["dropped"]


def test_serving_continues_and_no_record_is_lost(pipe: Pipe, directory: pathlib.Path) -> None:
    broker = Broker(directory, projects=[registration("myrepo", "A")], stderr=pipe.write_end, rate_limit_per_second=0)
    with contextlib.closing(broker):
        broker.start()
        broker.push({"A": "a"})
        pipe.stop()
        with Link(broker.project()) as client:
            began = time.monotonic()
            client.ask(GET)
            for _ in range(300):
                assert client.ask(GET)["value"] == "a"
            assert time.monotonic() - began < 25  # thirty seconds if each had waited
            assert counts(audit_status(broker)) == (False, 301, 0)
            time.sleep(0.6)  # several failed attempts
            pipe.flow()
            # Without any further request.
            poll("the records", lambda: len(pipe.records("fetch")) == 301)
            poll("the word", lambda: pipe.records("audit.recovered"))
        assert counts(audit_status(broker)) == (True, 0, 0)
        times = [int(one["REMO_EVENT_USEC"]) for one in pipe.records("fetch")]
        assert times == sorted(times)
        assert times[-1] < time.time_ns() // 1000
        assert [one["REMO_BACKEND"] for one in pipe.records("fetch")] == ["store"] + ["cache"] * 300
        (degraded,) = pipe.records("audit.degraded")
        assert degraded["PRIORITY"] == "3"
        (recovered,) = pipe.records("audit.recovered")
        assert recovered["REMO_DROPPED"] == "0"


def test_lost_records_are_counted_everywhere(pipe: Pipe, directory: pathlib.Path) -> None:
    broker = Broker(directory, projects=[registration("myrepo", "A")], stderr=pipe.write_end, rate_limit_per_second=0)
    with contextlib.closing(broker):
        broker.start()
        pipe.stop()
        with Link(broker.project()) as client:
            client.send(GET * (WAITING_RECORDS + 300))
            for _ in range(WAITING_RECORDS + 300):
                assert client.reply()["reason"] == "no_snapshot"
        status = audit_status(broker)
        assert (status["healthy"], status["queued"]) == (False, WAITING_RECORDS)
        lost = status["dropped"]
        assert isinstance(lost, int)
        assert 300 <= lost <= 302  # the gets, and the records about the failure
        pipe.flow()
        poll("the records", lambda: pipe.records("audit.recovered"))
        assert int(pipe.records("audit.recovered")[-1]["REMO_DROPPED"]) == lost
        assert len(pipe.records("fetch")) == WAITING_RECORDS + 300 - lost
        with Link(broker.status_socket) as watcher:
            watcher.send({"op": "watch"})
            assert json.loads(watcher.line())["audit_dropped"] == lost


def test_deny_hands_out_no_secret_without_its_record(pipe: Pipe, directory: pathlib.Path) -> None:
    broker = Broker(
        directory,
        projects=[registration("myrepo", "A", "B")],
        stderr=pipe.write_end,
        audit_failure="deny",
        rate_limit_per_second=0,
    )
    with contextlib.closing(broker):
        broker.start()
        broker.push({"A": "zqMarkerqz"})
        with Link(broker.project()) as client:
            assert client.ask({"op": "get", "name": "B"})["reason"] == "not_in_snapshot"
            pipe.stop()
            for _ in range(5):
                client.send(GET)
                answer = client.line()
                assert b"zqMarkerqz" not in answer
                refusal = json.loads(answer)
                assert (refusal["code"], refusal["reason"]) == ("internal_error", "audit_unavailable")
                assert refusal["retry_after_seconds"] == 1
            assert audit_status(broker)["healthy"] is False
            # Requests that return no secret are still answered.
            assert client.ask(b'{"op":"ping"}\n')["ok"]
            assert client.ask({"op": "get", "name": "B"})["reason"] == "not_in_snapshot"
            assert client.ask({"op": "get", "name": "C"})["reason"] == "not_in_manifest"
            status = broker.status()["projects"][0]
            assert (status["cache_entries"], status["fetches_denied"]) == (0, 6)
            pipe.flow()
            poll("secrets again", lambda: client.ask(GET)["ok"])
            assert client.ask(GET)["value"] == "zqMarkerqz"

        def served() -> list[dict[str, str]]:
            return [one for one in pipe.records("fetch") if one["REMO_OUTCOME"] == "ok"]

        poll("the records, the last ones of which are of what was served", lambda: len(served()) >= 2)
        fetched = pipe.records("fetch")
        denied = [one for one in fetched if one["REMO_REASON"] == "audit_unavailable"]
        assert len(denied) >= 5
        assert {(one["REMO_DECISION"], one["REMO_OUTCOME"], one["PRIORITY"]) for one in denied} == {
            ("deny", "denied", "4")
        }
        assert [one["REMO_BACKEND"] for one in served()] == ["store", "cache"]  # denied gets started no lease


def test_a_closed_standard_error_does_not_stop_the_broker(directory: pathlib.Path) -> None:
    read_end, write_end = os.pipe()
    broker = Broker(directory, projects=[registration("myrepo", "A")], stderr=write_end)
    with contextlib.closing(broker):
        broker.start()
        os.close(write_end)
        broker.push({"A": "a"})
        os.close(read_end)
        assert [broker.get("A")["value"] for _ in range(5)] == ["a"] * 5
        assert audit_status(broker)["healthy"] is False


def test_a_full_standard_error_does_not_delay_the_exit(pipe: Pipe, directory: pathlib.Path) -> None:
    broker = Broker(directory, projects=[registration("myrepo", "A")], stderr=pipe.write_end)
    with contextlib.closing(broker):
        broker.start()
        pipe.stop()
        assert broker.get("A")["reason"] == "no_snapshot"
        broker.stop()
