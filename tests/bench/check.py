"""A requirement that was measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.figures import Figure


@dataclasses.dataclass(frozen=True)
class Check:
    """One requirement: `measured` may not be more than `limit`, or not less where `at_least`."""

    id: str
    what: str
    unit: str
    limit: float
    measured: Figure
    detail: str
    at_least: bool = False
    holds: bool = True
    """False where something else than the figure is wrong, which `detail` says."""

    @property
    def ratio(self) -> float:
        return self.measured.value / self.limit if self.limit else self.measured.value

    @property
    def ok(self) -> bool:
        within = self.measured.value >= self.limit if self.at_least else self.measured.value <= self.limit
        return within and self.holds

    def to_json(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "holds"}
        return {**fields, "measured": self.measured.to_json(), "ratio": self.ratio, "ok": self.ok}
