"""One client that asks now and then beside fifty that never stop: W1, A4, and what the one
waits for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tests.bench import journal
from tests.bench.check import Check
from tests.bench.figures import Figure, microseconds
from tests.bench.generator import Generator
from tests.bench.setting import Setting, say
from tests.bench.speed import WITHOUT, changed

if TYPE_CHECKING:
    from tests.bench.broker import Unit
    from tests.bench.generator import Sample

MS = 1e6
BUSY_CONNECTIONS = 50
# More than they do in that time.
ENDLESS_REQUESTS = 100_000_000
PACE_USEC = 50_000
SECONDS = 60
# W1, and A4: the one's project is another's.
LIMIT_NS, OTHER_LIMIT_NS = 2 * MS, 50 * MS
OTHER = "neighbour"


def measure(setting: Setting, unit: Unit) -> tuple[list[Check], list[dict[str, Any]]]:
    """W1 and A4, and a row for each way in which the one is served."""
    first = dataclasses.replace(setting.place, realtime=True)
    preferred = dataclasses.replace(setting, place=first, generator=Generator(first))
    rows: list[dict[str, Any]] = []

    def row(what: str, sample: Sample, busy: float) -> str:
        figures = {name: getattr(sample, name) for name in ("median_ns", "p99_ns", "max_ns")}
        rows.append({"what": what, "times": sample.count, "refused": sample.refused, **figures})
        return f"{sample.count} times, median {microseconds(sample.median_ns)}; they {busy:,.0f}/s"

    def check(id_: str, what: str, limit: float, sample: Sample, detail: str) -> Check:
        p99 = Figure(sample.p99_ns, sample.min_ns, sample.max_ns)
        return Check(id_, f"{what}, p99", "milliseconds", limit, p99, detail)

    unit.settle()
    unit.register(OTHER)
    what = f"{BUSY_CONNECTIONS} that never stop"
    one, busy = _beside(setting, unit)
    found = [check("W1", f"asking beside {what}", LIMIT_NS, one, row(what, one, busy))]
    what += " in another project"
    one, busy = _beside(setting, unit, project=OTHER)
    found.append(check("A4", f"asking beside {what}", OTHER_LIMIT_NS, one, row(what, one, busy)))
    row("the fifty; the one, the broker and journald run before them", *_beside(preferred, unit))
    with changed(WITHOUT % "records"):
        unit.settle()
        row("the fifty; no records", *_beside(setting, unit))
        row("the fifty; no records, and the one and the broker run before them", *_beside(preferred, unit))
    return found, rows


def _beside(setting: Setting, unit: Unit, project: str = "") -> tuple[Sample, float]:
    """What the one saw, and how often the fifty, of `project` or the same, were answered in a
    second."""
    seconds = setting.many(SECONDS)
    say(f"one client beside {BUSY_CONNECTIONS}, {seconds} s")
    busy = dataclasses.replace(unit.get, socket=unit.project_socket(project)) if project else unit.get
    ordinary = Generator(dataclasses.replace(setting.place, realtime=False))
    with (
        setting.place.holding(unit.pid, None),
        journal.held(setting.place, None),
        setting.generator.bystander(unit.get, PACE_USEC, seconds) as found,
    ):
        many = ordinary.throughput(busy, ENDLESS_REQUESTS, BUSY_CONNECTIONS, seconds=seconds)
    [one] = found
    return one, many.per_second
