"""New connections at a rate, one get on each, whatever is answered: N17, and what disturbs such clients.

Each is timed from the moment it was due, so a stall of the server is seen by all that were due meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from tests.bench import journal, original
from tests.bench.broker import ALLOWED, UNIT, push_of_size
from tests.bench.check import Check
from tests.bench.contestant import Missing
from tests.bench.figures import Figure, microseconds
from tests.bench.setting import Setting, say
from tests.bench.speed import ORIGINAL, OURS, Side, processor_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.broker import Unit

MS = 1e6
SLOW, FAST = 500, 5_000
# For how long each round lasts; and requirement N17's minute, in one piece, in a quick run too.
SECONDS, MINUTE = 3, 60
ROUNDS = 3
# How long each disturbance is watched, and how often it comes.
DISTURBED_SECONDS, PAUSE_SECONDS = 8.0, 1.0
MANIFESTS = 100
LARGE_PUSH_BYTES, LARGE_PUSH_SECRETS = 2**20, 1000


@dataclasses.dataclass(frozen=True)
class Load:
    """What clients at `rate` saw of one server. Times are nanoseconds."""

    server: str
    rate: int
    pinned: bool
    seconds: int
    median_ns: Figure
    p99_ns: Figure
    max_ns: float
    processor_ns: Figure
    refused: int
    asked: int
    recorded: int


def measure(setting: Setting, unit: Unit) -> tuple[list[Check], list[dict[str, Any]]]:
    """N17's minute, and a row for each server, rate and way of pinning."""
    unit.settle()
    generation = unit.push(len(ALLOWED))
    ours = Side(OURS, unit.get, lambda: unit.pid, lambda: journal.count(*unit.audited(generation)))
    long = _load(setting, ours, FAST, MINUTE, 1, pinned=False)
    loads = [*_loads(setting, ours), long]
    try:
        with original.running(setting.place) as peer:
            loads += _loads(setting, Side(ORIGINAL, peer.get, lambda: peer.pid, peer.records))
    except Missing as why:
        say(f"{ORIGINAL} is not measured: {why}")
    what = f"{FAST:,} new connections a second for {MINUTE} s, p99"
    complete = long.asked <= long.recorded <= long.asked + journal.rotations()
    detail = (
        f"{long.refused:,} refused, median {microseconds(long.median_ns.value)}; "
        f"{long.recorded:,} of {long.asked:,} audited"
    )
    check = Check("N17", what, "milliseconds", 5 * MS, long.p99_ns, detail, holds=complete and not long.refused)
    return [check], [dataclasses.asdict(load) for load in loads]


def _loads(setting: Setting, side: Side) -> list[Load]:
    return [
        _load(setting, side, rate, SECONDS, ROUNDS, pinned=pinned) for rate in (SLOW, FAST) for pinned in (True, False)
    ]


def _load(setting: Setting, side: Side, rate: int, seconds: int, rounds: int, *, pinned: bool) -> Load:
    say(f"{side.name}: {rate:,} connections a second for {rounds * seconds} s, {'' if pinned else 'not '}pinned")
    cpu, journal_cpu = (setting.place.server_cpu, setting.place.client_cpu) if pinned else (None, None)
    samples, processor = [], []
    before, pid = side.records(), side.pid()
    with setting.place.holding(pid, cpu), journal.held(setting.place, journal_cpu):
        for _ in range(rounds):
            began = processor_ns(pid)
            sample = setting.generator.open_loop(side.get, rate, seconds, cpu=cpu)
            processor.append((processor_ns(pid) - began) / sample.count)
            samples.append(sample)
    return Load(
        side.name,
        rate,
        pinned,
        seconds * rounds,
        Figure.of_noisy([sample.median_ns for sample in samples]),
        Figure.of_noisy([sample.p99_ns for sample in samples]),
        max(sample.max_ns for sample in samples),
        Figure.of_noisy(processor),
        sum(sample.refused for sample in samples),
        sum(sample.count - sample.refused for sample in samples),
        side.records() - before,
    )


# --- what disturbs whom


def disturbances(setting: Setting, unit: Unit) -> tuple[list[Check], list[dict[str, Any]]]:
    """No requirement; the worst wait of clients at the slow rate while something else is done
    again and again."""
    unit.settle()
    for number in range(MANIFESTS):
        unit.register(f"manifest-{number:03}")
    push = push_of_size(LARGE_PUSH_BYTES, LARGE_PUSH_SECRETS)
    actions: dict[str, Callable[[], object] | None] = {
        "nothing": None,
        "a push of 1 MiB": lambda: unit.ask(push),
        f"a reload of {MANIFESTS} manifests": lambda: _systemctl("reload", UNIT),
        "journald takes a new file": lambda: subprocess.run(["journalctl", "--rotate"], check=True),
        "a restart, then a push": lambda: _restart(unit),
    }
    rows = []
    for what, action in actions.items():
        say(f"{SLOW} connections a second and {what}")
        with _repeated(action) as done:
            sample = setting.generator.open_loop(unit.get, SLOW, DISTURBED_SECONDS)
        row = {"what": what, "times": len(done), "refused": sample.refused}
        rows.append({**row, "median_ns": sample.median_ns, "p99_ns": sample.p99_ns, "max_ns": sample.max_ns})
    return [], rows


@contextlib.contextmanager
def _repeated(action: Callable[[], object] | None) -> Iterator[list[object]]:
    """Do something every `PAUSE_SECONDS` until the block ends; the list has what each returned."""
    done: list[object] = []
    ended = threading.Event()

    def run() -> None:
        while action is not None and not ended.wait(PAUSE_SECONDS):
            done.append(action())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()


def _restart(unit: Unit) -> None:
    _systemctl("restart", UNIT)
    unit.push(len(ALLOWED))


def _systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", *arguments], check=True)
