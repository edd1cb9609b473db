"""What was measured, for people: tables and a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench import host
from tests.bench.chart import Bar, Chart, Line, bars, lines, page
from tests.bench.figures import SHOWERS, Figure, duration, mebibytes, milliseconds, per_second, plain, times
from tests.bench.table import table

if TYPE_CHECKING:
    from tests.bench.figures import Shower

COMMAND = "./run bench"


def tables(found: dict[str, Any]) -> str:
    """Everything that `found` holds, a blank line between."""
    parts = [host.one_line(found["machine"]), _conditions(found)]
    if "limits" in found:
        parts.append(_limits(found["limits"]))
    if "contestants" in found:
        parts.append(_contestants(found["contestants"]))
        parts += [f"not measured: {name}: {why}" for name, why in found["absent"].items()]
    if "growth" in found:
        parts.append(_growth(found["growth"]))
    return "\n\n".join(parts)


def missed(found: dict[str, Any]) -> list[str]:
    """The ids of the limits that do not hold."""
    return [check["id"] for check in found.get("limits", []) if not check["ok"]]


def _conditions(found: dict[str, Any]) -> str:
    pinned = "one connection: client and server on one processor; fifty: on two" if found["pinned"] else "not pinned"
    quick = ", short" if found["quick"] else ""
    pinned += "; before all else that ran there (realtime)" if found["realtime"] else ""
    return f"remo-broker {found['version']}; {found['rounds']} rounds in turn{quick}, medians and their range; {pinned}"


def _limits(checks: list[dict[str, Any]]) -> str:
    rows = []
    for check in checks:
        show, measured = SHOWERS[check["unit"]], Figure.from_json(check["measured"])
        bound = "at least" if check["at_least"] else "at most"
        rows.append(
            [
                check["id"],
                check["what"],
                f"{bound} {show(check['limit'])}",
                show(measured.median),
                measured.spread(show),
                f"{check['ratio']:.2f}",
                "ok" if check["ok"] else "MISSED",
                check["detail"],
            ]
        )
    head = ["id", "what", "limit", "measured", "rounds", "ratio", "", "detail"]
    return table(head, rows, right=("limit", "measured", "rounds", "ratio"))


def _contestants(contestants: list[dict[str, Any]]) -> str:
    rows = []
    bare = contestants[0]["median_ns"]["median"]
    for one in contestants:
        median = Figure.from_json(one["median_ns"])
        rate = per_second(one["per_second"]["median"]) if one["per_second"] else ""
        tails = [duration(one[name]["median"]) for name in ("p99_ns", "p999_ns")]
        against = times(median.median / bare)
        shown = [duration(median.median), median.spread(duration), *tails, against, rate]
        rows.append([one["name"], one["does"], *shown, one["audit"], one["allowlist"], one["memory"]])
    head = [
        "one fetch",
        "is",
        "median",
        "rounds",
        "p99",
        "p99.9",
        "against echo",
        "50 clients",
        "audit",
        "allowlist",
        "memory",
    ]
    return table(head, rows, right=("median", "rounds", "p99", "p99.9", "against echo", "50 clients"))


def _growth(populations: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{one['projects']:,}",
            f"{one['secrets']:,}",
            duration(one["median_ns"]["median"]),
            duration(one["p99_ns"]["median"]),
            milliseconds(one["start_ns"]["median"]),
            mebibytes(one["resident_bytes"]["median"]),
        ]
        for one in populations
    ]
    head = ["projects", "secrets", "get", "p99", "first answer", "resident"]
    return table(head, rows, right=head)


def chart(found: dict[str, Any]) -> str:
    """An SVG of everything that `found` holds."""
    charts: list[Chart] = []
    if "contestants" in found:
        charts.append(
            bars(
                "One fetch over one connection, median (logarithmic)",
                [_bar(one) for one in found["contestants"]],
                duration,
            )
        )
    if "growth" in found:
        charts += _growth_charts(found["growth"])
    return page(charts, f"{COMMAND}: remo-broker {found['version']}; {host.one_line(found['machine'])}")


def _bar(one: dict[str, Any]) -> Bar:
    median = Figure.from_json(one["median_ns"])
    own = one["name"].startswith("remo-broker")
    return Bar(f"{one['name']}: {one['does']}", median.median, median.low, median.high, strong=own)


def _growth_charts(populations: list[dict[str, Any]]) -> list[Chart]:
    projects = [one for one in populations if one["secrets"] == 10]
    secrets = [one for one in populations if one["projects"] == 1]

    def chart(title: str, name: str, unit: float, shower: Shower) -> Chart:
        series = [
            Line("projects, 10 secrets", [(one["projects"], one[name]["median"] / unit) for one in projects]),
            Line("secrets, 1 project", [(one["secrets"], one[name]["median"] / unit) for one in secrets]),
        ]
        return lines(f"{title}, against the number of projects and of secrets", series, shower)

    return [
        chart("get, median", "median_ns", 1, duration),
        chart("Stopped service: connect to first answer", "start_ns", 1, milliseconds),
        chart("Resident memory, MiB", "resident_bytes", 2**20, plain),
    ]
