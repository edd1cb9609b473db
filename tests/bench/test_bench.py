"""The instruments themselves: no figure is asserted here, that is for `./run bench`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench import contest, echo, journal, programs, report
from tests.bench.broker import push_of_size
from tests.bench.check import Check
from tests.bench.contestant import Place
from tests.bench.figures import Figure
from tests.bench.generator import Failed, FetchCommand, Generator
from tests.bench.setting import Setting
from tests.support.machine import unavailable


@pytest.fixture
def place() -> Iterator[Place]:
    # Not pytest's own directory: with a worker's name in it, a socket's path below it may be too long.
    with tempfile.TemporaryDirectory(prefix="rb-") as directory:
        try:
            yield Place.choose(pathlib.Path(directory), programs.build())
        except FileNotFoundError:
            unavailable("there is no C compiler here")


@pytest.fixture
def generator(place: Place) -> Generator:
    return Generator(place)


def test_every_request_is_timed_and_its_reply_whole(place: Place, generator: Generator) -> None:
    with echo.plain(place, 20_000) as target:
        alone = generator.latency(target, 50, warmup=10)
        many = generator.throughput(target, 500, 20)
    assert (alone.count, alone.reply_bytes) == (50, 20_000)
    assert (many.count, many.reply_bytes) == (500, 20_000)
    for sample in (alone, many):
        assert 0 < sample.min_ns <= sample.median_ns <= sample.p99_ns <= sample.p999_ns <= sample.max_ns


def test_the_open_loop_makes_all_its_connections_and_counts_what_was_not_served(
    place: Place, generator: Generator
) -> None:
    with echo.plain(place, 64) as target:
        served = generator.open_loop(target, 1000, 0.2)
        others = generator.open_loop(dataclasses.replace(target, expect="{"), 1000, 0.2)
    assert (served.count, served.refused) == (200, 0)
    assert (others.count, others.refused) == (200, 200)


def test_noise_only_adds_so_the_lower_quartile_counts() -> None:
    assert Figure.of_noisy([9, 1, 2, 3, 50]) == Figure(2, 1, 50)
    assert Figure.of_noisy([7]) == Figure(7, 7, 7)


def test_replies_that_were_not_expected_fail_the_run(place: Place, generator: Generator) -> None:
    with echo.plain(place, 10) as target, pytest.raises(Failed, match="50 of 50 answers"):
        generator.latency(dataclasses.replace(target, expect="{"), 50)


def test_a_server_that_closes_fails_the_run(place: Place, generator: Generator) -> None:
    path = str(place.work / "closing.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        argv = [str(place.programs.load), "latency", "--socket", path, "--request", "/dev/null", "--requests", "1"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            listener.accept()[0].close()
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "closed in mid-reply" in said


def test_a_program_that_fails_fails_the_run(generator: Generator) -> None:
    assert generator.spawn(FetchCommand(("cat",), b"x" * 100_000), 3).count == 3
    with pytest.raises(Failed, match="2 of 2"):
        generator.spawn(FetchCommand(("false",)), 2)


def test_records_are_whole_and_one_empty_line_apart(place: Place) -> None:
    path = str(place.work / "journal.sock")
    record = journal.record(place, {"MESSAGE": "hello", "REMO_EVENT": "fetch"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.bind(path)
        subprocess.run([place.programs.blast, path, record, "5", "2"], check=True, capture_output=True)
        taker.settimeout(5)
        datagrams = [taker.recv(65536).decode() for _ in range(3)]
    entries = [entry for datagram in datagrams for entry in datagram.removesuffix("\n").split("\n\n")]
    fields = "MESSAGE=hello\nREMO_EVENT=blast\nREMO_LATENCY_USEC="
    assert entries == [f"{fields}{number}\nREMO_SERIAL={number + 1}" for number in range(5)]


def test_a_push_has_the_size_that_was_asked_for() -> None:
    for size, count in ((1024**2, 10_000), (1024**2, 1000), (4096, 7)):
        request = push_of_size(size, count)
        assert len(request) == size
        assert len(json.loads(request)["secrets"]) == count


def test_contestants_that_cannot_be_started_are_named(
    place: Place, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "REQUESTS", 20)
    monkeypatch.setattr(contest, "SPAWNS", 1)
    monkeypatch.setenv(contest.EXECUTABLE, "/bin/false")
    found = contest.measure(Setting(place, generator, None, rounds=1, quick=False))
    assert {"C echo", "remo-broker"} <= {one["name"] for one in found["contestants"]}
    assert "did not listen" in found["absent"]["executable"]


def test_a_limit_holds_by_its_median_and_when_nothing_else_is_wrong() -> None:
    def ok(median: float, **more: Any) -> bool:
        return Check("N0", "", "times", 2, Figure(median, 0, 9), "", **more).ok

    assert [ok(1.9), ok(2), ok(2.1)] == [True, True, False]
    assert [ok(1.9, at_least=True), ok(2.1, at_least=True)] == [False, True]
    assert not ok(1.9, holds=False)


def test_tables_and_charts_of_everything() -> None:
    figure = {"value": 20_500.0, "low": 19_000.0, "high": 3e6}
    contestant = {"does": "<get>", "audit": "none", "allowlist": "none", "memory": "-", "per_second": None}
    times = dict.fromkeys(("median_ns", "p99_ns", "p999_ns"), figure)
    found = {
        "version": "2.0.0",
        "machine": dict.fromkeys(("cpu", "kernel", "distribution", "systemd", "python"), "x")
        | {"cores": 2, "memory_bytes": 2**30, "load_average": 0.1},
        "rounds": 3,
        "quick": True,
        "pinned": True,
        "realtime": True,
        "limits": [
            Check("N1", "get", "times", 2, Figure(2.5, 2.4, 2.6), "").to_json(),
            Check("N5", "resident", "mebibytes", 2**21, Figure.of([2**20]), "").to_json(),
        ],
        "contestants": [{"name": name, **contestant, **times} for name in ("C echo", "remo-broker")],
        "load": [
            {
                "server": "remo-broker",
                "rate": 500,
                "pinned": True,
                "seconds": 4,
                "max_ns": 3e6,
                "refused": 1,
                "asked": 2000,
                "recorded": 1999,
                **dict.fromkeys(("median_ns", "p99_ns", "processor_ns"), figure),
            }
        ],
        "disturbance": [
            {"what": "a push", "times": 8, "refused": 3, **dict.fromkeys(("median_ns", "p99_ns", "max_ns"), 2e6)}
        ],
        "absent": {"redis": "redis-check-rdb is not installed"},
        "growth": [
            {"projects": projects, "secrets": secrets, "start_ns": figure, "resident_bytes": figure, **times}
            for projects, secrets in ((1, 10), (10, 10), (1, 100))
        ],
    }
    text = report.tables(found)
    assert "MISSED" in text
    assert "1,999 of 2,000" in text
    assert "a push" in text
    assert "20.5 µs" in text
    assert "not measured: redis" in text
    assert report.missed(found) == ["N1"]
    texts = "".join(ET.fromstring(report.chart(found)).itertext())
    assert "remo-broker: <get>" in texts
    assert "first answer" in texts


def test_targets_differ_by_what_ends_a_reply(place: Place, generator: Generator) -> None:
    with echo.plain(place, 64) as target:
        whole = dataclasses.replace(target, reply="bytes:64")
        assert generator.latency(whole, 5).reply_bytes == 64
        assert generator.latency(dataclasses.replace(target, fresh=True), 5).count == 5
