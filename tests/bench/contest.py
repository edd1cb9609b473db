"""All contestants side by side, round by round."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from tests.bench import broker, clients, echo, journal, peers
from tests.bench.contestant import Contestant, Missing
from tests.bench.figures import Figure
from tests.bench.generator import Failed, FetchCommand, OwnClient, Sample, Target
from tests.bench.setting import Setting, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.broker import Unit

EXECUTABLE = "REMO_BENCH_EXECUTABLE"

REQUESTS = 20_000
SPAWNS = 100
CONNECTIONS = 50
# What the broker answers to a get of the usual secret is so long, give or take the digits of its lease.
REPLY_BYTES = 105


def measure(setting: Setting) -> dict[str, Any]:
    """Every contestant's latency with one connection and rate with fifty; and why some are
    absent."""
    samples: dict[Contestant, list[Sample]] = collections.defaultdict(list)
    rates: dict[Contestant, list[float]] = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        present, absent = _enter(setting, stack)
        for number in range(setting.rounds):
            say(f"contestants, round {number + 1} of {setting.rounds}")
            for contestant in [one for one in present if one.name not in absent]:
                with _missing(absent, contestant.name):
                    samples[contestant].append(_latency(setting, contestant))
                    if isinstance(contestant.probe, Target) and not contestant.probe.fresh:
                        rates[contestant].append(_rate(setting, contestant.probe))
    measured = [one for one in present if one.name not in absent]
    return {"contestants": [_row(one, samples[one], rates[one]) for one in measured], "absent": absent}


def _latency(setting: Setting, contestant: Contestant) -> Sample:
    probe = contestant.probe
    match probe:
        case Target():
            return setting.generator.latency(probe, setting.many(REQUESTS), cpu=setting.place.server_cpu, warmup=200)
        case FetchCommand():
            return setting.generator.spawn(probe, setting.many(SPAWNS))
        case OwnClient():
            return setting.generator.own_client(probe, setting.many(REQUESTS // 4))


def _rate(setting: Setting, target: Target) -> float:
    requests = setting.many(REQUESTS) if target.reply == "length32" else setting.many(REQUESTS * 5)
    return setting.generator.throughput(target, requests, CONNECTIONS, cpu=setting.place.client_cpu).per_second


def _row(contestant: Contestant, samples: list[Sample], rates: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {
        field.name: getattr(contestant, field.name) for field in dataclasses.fields(contestant) if field.name != "probe"
    }
    for quantile in ("median_ns", "p99_ns", "p999_ns"):
        row[quantile] = Figure.of([getattr(sample, quantile) for sample in samples]).to_json()
    row["per_second"] = Figure.of(rates).to_json() if rates else None
    return row


def _enter(setting: Setting, stack: contextlib.ExitStack) -> tuple[list[Contestant], dict[str, str]]:
    """Start everybody; who could not be started, and why."""
    present: list[Contestant] = []
    absent: dict[str, str] = {}
    entrants = {"echo": _echo, "echo-audited": _echo_audited, "remo-broker": _broker, "executable": _executable}
    for name, enter in entrants.items():
        with _missing(absent, name):
            present += stack.enter_context(enter(setting))
    for name, peer in peers.PEERS.items():
        with _missing(absent, name):
            present += stack.enter_context(peer(setting.place))
    return present, absent


@contextlib.contextmanager
def _missing(absent: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except (Missing, Failed) as why:
        say(f"{name} is not measured: {why}")
        absent[name] = str(why)


@contextlib.contextmanager
def _echo(setting: Setting) -> Iterator[list[Contestant]]:
    with echo.plain(setting.place, REPLY_BYTES) as target:
        yield [Contestant("C echo", "nothing: the machine's limit", "none", "none", "-", target)]


@contextlib.contextmanager
def _echo_audited(setting: Setting) -> Iterator[list[Contestant]]:
    if setting.unit is None:
        yield []
        return
    setting.unit.settle()
    setting.generator.latency(setting.unit.get, 1)
    like = journal.newest_fetch()
    with (
        echo.audited(setting.place, REPLY_BYTES, like) as target,
        journal.held(setting.place, setting.place.client_cpu),
    ):
        does = "a record to the journal: the audit's limit"
        yield [Contestant("C echo, audited", does, "every line, to the journal", "none", "-", target)]


@contextlib.contextmanager
def _broker(setting: Setting) -> Iterator[list[Contestant]]:
    if setting.unit is not None:
        protection = setting.unit.settle()
        with setting.place.holding(setting.unit.pid, setting.place.server_cpu):
            audit = "every get, to the journal"
            yield [
                *_rows("remo-broker", audit, protection, setting.unit),
                _client(
                    "remo-secret get", "the program, as a shell starts it", audit, "/usr/bin/remo-secret", setting.unit
                ),
                _client("remo-secret get, in Python", "the same", audit, clients.PYTHON_PROGRAM, setting.unit),
            ]
        return
    argv = [sys.executable, "-m", "remo_broker", "--rate-limit-per-second", "0"]
    with broker.started(setting.place, "remo-broker", argv) as measured:
        protection = str(measured.ask(b'{"op":"status"}\n')["memory_protection"])
        yield _rows("remo-broker", "every get, to a file", protection, measured)


@contextlib.contextmanager
def _executable(setting: Setting) -> Iterator[list[Contestant]]:
    path = os.environ.get(EXECUTABLE)
    if path is None:
        yield []
        return
    name = pathlib.Path(path).name
    with broker.started(setting.place, name, [path]) as measured:
        yield _rows(name, "its own", "its own", measured)


def _client(name: str, does: str, audit: str, program: str, unit: Unit) -> Contestant:
    command = FetchCommand((program, "--socket", unit.project_socket(), "get", clients.SECRET))
    return Contestant(name, does, audit, "per project", "-", command)


def _rows(name: str, audit: str, memory: str, measured: broker.BenchBroker) -> list[Contestant]:
    fresh = dataclasses.replace(measured.get, fresh=True)
    return [
        Contestant(name, "get", audit, "per project", memory, measured.get),
        Contestant(f"{name}, connecting", "connect, get, close", audit, "per project", memory, fresh),
    ]
