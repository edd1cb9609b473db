"""Whole commands against `python3 -c pass`, which is what Python itself costs at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.figures import Figure, milliseconds
from tests.bench.generator import FetchCommand

if TYPE_CHECKING:
    from tests.bench.setting import Setting

BARE = FetchCommand(("/usr/bin/python3", "-c", "pass"))


def against_interpreter(setting: Setting, command: FetchCommand, starts: int) -> tuple[Figure, str]:
    """How many times as long as the bare interpreter, in turn, and the time itself."""
    ratios, took = [], []
    for _ in range(setting.rounds):
        bare = setting.generator.spawn(BARE, setting.many(starts)).median_ns
        took.append(setting.generator.spawn(command, setting.many(starts)).median_ns)
        ratios.append(took[-1] / bare)
    return Figure.of(ratios), milliseconds(Figure.of(took).value)
