"""What a get, a start and the memory cost against the number of projects and of secrets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tests.bench import journal
from tests.bench.broker import resident
from tests.bench.figures import Figure
from tests.bench.setting import Setting, say

if TYPE_CHECKING:
    from tests.bench.broker import Unit
    from tests.bench.generator import Sample

# Of projects and of secrets.
POPULATIONS = (
    (1, 10),
    (10, 10),
    (100, 10),
    (1000, 10),
    (1, 100),
    (1, 1000),
    (1, 10_000),
    (1000, 10_000),
)
GETS = 10_000


def measure(setting: Setting) -> list[dict[str, Any]]:
    """One row per population. The rounds go through all of them in turn."""
    assert setting.unit is not None
    rounds: dict[tuple[int, int], list[tuple[Sample, int, int]]] = {one: [] for one in POPULATIONS}
    for number in range(setting.rounds):
        say(f"growth, round {number + 1} of {setting.rounds}")
        for population in POPULATIONS:
            rounds[population].append(_once(setting, setting.unit, *population))
    return [
        {
            "projects": projects,
            "secrets": count,
            "median_ns": Figure.of([sample.median_ns for sample, _, _ in found]).to_json(),
            "p99_ns": Figure.of([sample.p99_ns for sample, _, _ in found]).to_json(),
            "start_ns": Figure.of([start for _, start, _ in found]).to_json(),
            "resident_bytes": Figure.of([size for _, _, size in found]).to_json(),
        }
        for (projects, count), found in rounds.items()
    ]


def _once(setting: Setting, unit: Unit, projects: int, count: int) -> tuple[Sample, int, int]:
    """Latency of gets; nanoseconds from connect to first answer; bytes resident."""
    unit.populate(projects, configured=False)
    start = setting.generator.latency(dataclasses.replace(unit.ping, fresh=True), 1).median_ns
    unit.push(count)
    size = resident(unit.pid)
    unit.populate(projects)
    unit.push(count)
    cpu = setting.place.server_cpu
    with setting.place.holding(unit.pid, cpu), journal.held(setting.place, setting.place.client_cpu):
        return setting.generator.latency(unit.get, setting.many(GETS), cpu=cpu, warmup=500), start, size
