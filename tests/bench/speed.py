"""N1, N2, N13 and N15 to N17: a get and a connection beside the audited echo and the Rust original.

All of them in turn, round by round; a figure is the lower quartile of the rounds, as other work on a shared machine only adds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench import echo, journal, original
from tests.bench.broker import ALLOWED, UNIT
from tests.bench.check import Check
from tests.bench.contestant import Missing
from tests.bench.figures import Figure, microseconds
from tests.bench.setting import Setting, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.broker import Unit
    from tests.bench.generator import Sample, Target

ROUNDS = 7
QUICK_ROUNDS = 5
REQUESTS = 5_000
WARM_UP = 300
MS = 1e6

ECHO, LEAST, ORIGINAL, OURS = "C echo, audited", "least Python server", "Rust original", "remo-broker"
# Requirement N13, in nanoseconds.
ATTRIBUTION_NS = 15_000
# What a piece of the broker costs: see prototype.py.
WITHOUT = """\
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -SsP /usr/src/remo-broker/tests/bench/prototype.py %s
"""
# Pinned, a connection per get.
CASES = [(True, False), (True, True), (False, False), (False, True)]


@dataclasses.dataclass(frozen=True)
class Side:
    """A server that is measured."""

    name: str
    get: Target
    pid: Callable[[], int]
    records: Callable[[], int]


class Rounds:
    """What was measured, in nanoseconds: by (side, pinned, a connection per get) a value a
    round."""

    def __init__(self) -> None:
        self.took: dict[tuple[str, bool, bool], list[float]] = {}
        self.tails: dict[tuple[str, bool, bool], list[float]] = {}
        self.processor: dict[tuple[str, bool, bool], list[float]] = {}

    def add(self, key: tuple[str, bool, bool], sample: Sample, processor: float) -> None:
        self.took.setdefault(key, []).append(sample.median_ns)
        self.tails.setdefault(key, []).append(sample.p99_ns)
        self.processor.setdefault(key, []).append(processor)

    def figure(self, name: str, *, pinned: bool, fresh: bool) -> Figure:
        return Figure.of_noisy(self.took[name, pinned, fresh])

    def work(self, name: str, *, pinned: bool, fresh: bool) -> Figure:
        """Processor time of the server for one operation."""
        return Figure.of_noisy(self.processor[name, pinned, fresh])


def processor_ns(pid: int) -> int:
    """Processor time that a process, with all of its threads, has had."""
    return time.clock_gettime_ns(~pid << 3 | 2)  # the clock of another process: see clock_getcpuclockid(3)


def measure(setting: Setting, unit: Unit) -> list[Check]:
    """All sides in turn."""
    unit.settle()
    size = setting.generator.latency(unit.get, 10).reply_bytes
    like = journal.newest_fetch()
    generation = unit.push(len(ALLOWED))
    rounds = Rounds()
    asked = 0
    with contextlib.ExitStack() as stack:
        recorded, process = stack.enter_context(echo.audited_process(setting.place, size, like))
        least, interpreter = stack.enter_context(echo.least(setting.place, size, like))
        sides = [
            Side(ECHO, recorded, lambda: process.pid, lambda: 0),
            Side(LEAST, least, lambda: interpreter.pid, lambda: 0),
            Side(OURS, unit.get, lambda: unit.pid, lambda: journal.count(*unit.audited(generation))),
        ]
        try:
            peer = stack.enter_context(original.running(setting.place))
        except Missing as why:
            say(f"{ORIGINAL} is not measured: {why}")
        else:
            sides.insert(1, Side(ORIGINAL, peer.get, lambda: peer.pid, peer.records))
        for _ in range(max(setting.rounds, QUICK_ROUNDS if setting.quick else ROUNDS)):
            for pinned, fresh in CASES:
                for side in sides:
                    sample, processor = once(setting, side, pinned=pinned, fresh=fresh)
                    rounds.add((side.name, pinned, fresh), sample, processor)
                asked += REQUESTS + WARM_UP
        kept = {side.name: side.records() for side in sides}
    audit = {case: f"; {said}" for case, (said, _) in left_out(setting, unit, "records", CASES).items()}
    [(said, added)] = left_out(setting, unit, "identity", [(True, True)]).values()
    what = "what attribution adds to a connection"
    attribution = Check("N13", what, "microseconds", ATTRIBUTION_NS, added, f"connect, get, close: {said}")
    return [*checks(rounds, asked, kept, audit), attribution]


def once(setting: Setting, side: Side, *, pinned: bool, fresh: bool) -> tuple[Sample, float]:
    """One run against one side, and its processor time for one operation."""
    cpu, journal_cpu = (setting.place.server_cpu, setting.place.client_cpu) if pinned else (None, None)
    target = dataclasses.replace(side.get, fresh=fresh)
    pid = side.pid()
    with setting.place.holding(pid, cpu), journal.held(setting.place, journal_cpu):
        before = processor_ns(pid)
        sample = setting.generator.latency(target, REQUESTS, cpu=cpu, warmup=WARM_UP)
        time.sleep(0.01)  # the end of the last connection
        spent = processor_ns(pid) - before
    return sample, spent / (REQUESTS + WARM_UP)


def checks(rounds: Rounds, asked: int, kept: dict[str, int], audit: dict[tuple[bool, bool], str]) -> list[Check]:
    def ratio(one: Figure, other: Figure) -> Figure:
        return Figure(one.value / other.value, one.low / other.value, one.high / other.value)

    def both(one: Figure, name: str, other: Figure) -> str:
        return f"{microseconds(one.value)} to {name}'s {microseconds(other.value)}"

    complete = asked <= kept[OURS] <= asked + journal.rotations()
    audited = f"{kept[OURS]:,} of {asked:,} audited"
    get = rounds.figure(OURS, pinned=True, fresh=False)
    bottom = rounds.figure(ECHO, pinned=True, fresh=False)
    least = ratio(rounds.figure(LEAST, pinned=True, fresh=False), bottom)
    said = f"{both(get, 'the echo', bottom)}; the least server in Python {least.value:.2f} x"
    if ORIGINAL in kept:
        said += f", the original {ratio(rounds.figure(ORIGINAL, pinned=True, fresh=False), bottom).value:.2f} x"
    beside_echo = ratio(get, bottom)
    tail = Figure.of_noisy(rounds.tails[OURS, True, False])
    found = [
        Check("N1", "get, pinned, against the audited C echo", "times", 1.5, beside_echo, said, holds=complete),
        Check("N2", "get, p99", "milliseconds", 1 * MS, tail, audited, holds=complete),
        Check("N16", "get, pinned, against the audited C echo", "times", 1.3, beside_echo, said, holds=complete),
    ]
    if ORIGINAL not in kept:
        return found
    for pinned in (True, False):
        where = "pinned" if pinned else "unpinned"
        connection, theirs = (rounds.figure(name, pinned=pinned, fresh=True) for name in (OURS, ORIGINAL))
        limit = theirs.value + ATTRIBUTION_NS
        detail = (
            f"{both(connection, 'the original', theirs)}: {connection.value / theirs.value:.2f} x, "
            f"with at most {microseconds(ATTRIBUTION_NS)} of N13{audit[pinned, True]}"
        )
        found.append(
            Check("N15", f"connect, get, close, {where}", "microseconds", limit, connection, detail, holds=complete)
        )
        get, theirs = (rounds.figure(name, pinned=pinned, fresh=False) for name in (OURS, ORIGINAL))
        what = f"get, {where}, against the original"
        lost = f"the original recorded {kept[ORIGINAL]:,} of {asked:,}{audit[pinned, False]}"
        found.append(
            Check("N16", what, "times", 1.1, ratio(get, theirs), f"{both(get, 'the original', theirs)}; {lost}")
        )
    for fresh, what in ((True, "connect, get, close"), (False, "get")):
        mine, theirs = (rounds.work(name, pinned=True, fresh=fresh) for name in (OURS, ORIGINAL))
        wide, their_wide = (rounds.work(name, pinned=False, fresh=fresh) for name in (OURS, ORIGINAL))
        detail = f"{both(mine, 'the original', theirs)}; unpinned {both(wide, 'the original', their_wide)}"
        found.append(
            Check("N17", f"processor time of {what}, against the original", "times", 1.5, ratio(mine, theirs), detail)
        )
    return found


def left_out(
    setting: Setting, unit: Unit, piece: str, cases: list[tuple[bool, bool]]
) -> dict[tuple[bool, bool], tuple[str, Figure]]:
    """The service as it is and without a piece, in turn: by case both in words, and what the
    piece adds."""
    whole, bare = Rounds(), Rounds()

    def measure(rounds: Rounds) -> None:
        unit.push(len(ALLOWED))
        for pinned, fresh in cases:
            side = Side(OURS, unit.get, lambda: unit.pid, lambda: 0)
            sample, processor = once(setting, side, pinned=pinned, fresh=fresh)
            rounds.add((OURS, pinned, fresh), sample, processor)

    for _ in range(max(setting.rounds, QUICK_ROUNDS if setting.quick else ROUNDS)):
        measure(whole)
        with changed(WITHOUT % piece):
            measure(bare)
    found = {}
    for pinned, fresh in cases:
        with_it, without = (rounds.figure(OURS, pinned=pinned, fresh=fresh).value for rounds in (whole, bare))
        added = Figure.of_noisy([one - without for one in whole.took[OURS, pinned, fresh]])
        said = f"{microseconds(with_it)} with {piece}, {microseconds(without)} without"
        found[pinned, fresh] = said, added
    return found


@contextlib.contextmanager
def changed(settings: str) -> Iterator[None]:
    """The service restarted with these settings, and at the end without them."""
    file = pathlib.Path(f"/run/systemd/system/{UNIT}.d/bench.conf")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(settings)
    try:
        _restart()
        yield
    finally:
        file.unlink()
        _restart()


def _restart() -> None:
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "restart", UNIT], check=True)
