"""A quantity measured in several rounds, and how such are shown."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Figure:
    """What the rounds come to, and the lowest and highest of them."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Figure:
        """Their median."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    @classmethod
    def of_noisy(cls, rounds: Sequence[float]) -> Figure:
        """Their lower quartile, for what other work on the machine can only make longer."""
        quartile = statistics.quantiles(rounds, n=4, method="inclusive")[0] if len(rounds) > 1 else rounds[0]
        return cls(quartile, min(rounds), max(rounds))

    @classmethod
    def from_json(cls, fields: dict[str, float]) -> Figure:
        return cls(fields["value"], fields["low"], fields["high"])

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def spread(self, show: Shower) -> str:
        """The range of the rounds, such as `9.1..9.8 µs`; empty when there was one."""
        return "" if self.low == self.high else f"{show(self.low)}..{show(self.high)}"


def three_digits(value: float) -> str:
    """A number for a reader: three digits that count, thousands separated."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def microseconds(ns: float) -> str:
    return f"{three_digits(ns / 1e3)} µs"


def milliseconds(ns: float) -> str:
    return f"{three_digits(ns / 1e6)} ms"


def duration(ns: float) -> str:
    """Nanoseconds in the unit that suits their size."""
    return milliseconds(ns) if ns >= 1e6 else microseconds(ns)


def mebibytes(size: float) -> str:
    return f"{three_digits(size / 2**20)} MiB"


def per_second(value: float) -> str:
    return f"{three_digits(value)}/s"


def times(ratio: float) -> str:
    return f"{ratio:.2f} x"


def plain(value: float) -> str:
    return three_digits(value)


if TYPE_CHECKING:
    from collections.abc import Callable

    Shower = Callable[[float], str]

SHOWERS: dict[str, Shower] = {
    "duration": duration,
    "microseconds": microseconds,
    "milliseconds": milliseconds,
    "mebibytes": mebibytes,
    "per_second": per_second,
    "times": times,
    "plain": plain,
}
"""By the name of a unit, as results name it in JSON. Times are nanoseconds, sizes bytes."""
