"""What was measured, for people: tables and a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench import host
from tests.bench.chart import Bar, Chart, Line, bars, lines, page
from tests.bench.figures import (
    SHOWERS,
    Figure,
    duration,
    mebibytes,
    microseconds,
    milliseconds,
    per_second,
    plain,
    times,
)
from tests.bench.table import table

if TYPE_CHECKING:
    from tests.bench.figures import Shower

COMMAND = "./run bench"


def tables(found: dict[str, Any]) -> str:
    """Everything that `found` holds, a blank line between."""
    parts = [host.one_line(found["machine"]), _conditions(found)]
    if "limits" in found:
        parts.append(_limits(found["limits"]))
    if "load" in found:
        parts.append(_loads(found["load"]))
    if "disturbance" in found:
        parts.append(_waits("500 connections a second and", found["disturbance"]))
    if "beside" in found:
        parts.append(_waits("one client beside", found["beside"]))
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
    return f"remo-broker {found['version']}; {found['rounds']} rounds or more in turn{quick}, and their range; {pinned}"


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
                show(measured.value),
                measured.spread(show),
                f"{check['ratio']:.2f}",
                "ok" if check["ok"] else "MISSED",
                check["detail"],
            ]
        )
    head = ["id", "what", "limit", "measured", "rounds", "ratio", "", "detail"]
    return table(head, rows, right=("limit", "measured", "rounds", "ratio"))


def _loads(loads: list[dict[str, Any]]) -> str:
    rows = []
    for one in loads:
        median, p99, processor = (Figure.from_json(one[name]) for name in ("median_ns", "p99_ns", "processor_ns"))
        shown = [duration(median.value), duration(p99.value), p99.spread(duration), duration(one["max_ns"])]
        kept = f"{one['recorded']:,} of {one['asked']:,}"
        more = [microseconds(processor.value), f"{one['refused']:,}", kept]
        where = "pinned" if one["pinned"] else "unpinned"
        rows.append([f"{one['rate']:,}/s for {one['seconds']} s, {where}", one["server"], *shown, *more])
    right = ("median", "p99", "rounds", "worst", "processor time", "refused", "recorded")
    return table(["new connections, one get each", "server", *right], rows, right=right)


def _waits(head: str, rows: list[dict[str, Any]]) -> str:
    names = ("median_ns", "p99_ns", "max_ns")
    shown = [
        [one["what"], f"{one['times']}", *(duration(one[name]) for name in names), f"{one['refused']:,}"]
        for one in rows
    ]
    right = ("times", "median", "p99", "worst", "not served")
    return table([head, *right], shown, right=right)


def _contestants(contestants: list[dict[str, Any]]) -> str:
    rows = []
    bare = contestants[0]["median_ns"]["value"]
    for one in contestants:
        median = Figure.from_json(one["median_ns"])
        rate = per_second(one["per_second"]["value"]) if one["per_second"] else ""
        tails = [duration(one[name]["value"]) for name in ("p99_ns", "p999_ns")]
        against = times(median.value / bare)
        shown = [duration(median.value), median.spread(duration), *tails, against, rate]
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
            duration(one["median_ns"]["value"]),
            duration(one["p99_ns"]["value"]),
            milliseconds(one["start_ns"]["value"]),
            mebibytes(one["resident_bytes"]["value"]),
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
                "One fetch: over an open connection, with a connection of its own, by a program; median (logarithmic)",
                [_bar(one) for one in found["contestants"]],
                duration,
            )
        )
    if "growth" in found:
        charts += _growth_charts(found["growth"])
    return page(charts, f"{COMMAND}: remo-broker {found['version']}; {host.one_line(found['machine'])}")


def _bar(one: dict[str, Any]) -> Bar:
    median = Figure.from_json(one["median_ns"])
    own = one["name"].startswith("remo-")
    return Bar(f"{one['name']}: {one['does']}", median.value, median.low, median.high, strong=own)


def _growth_charts(populations: list[dict[str, Any]]) -> list[Chart]:
    projects = [one for one in populations if one["secrets"] == 10]
    secrets = [one for one in populations if one["projects"] == 1]

    def chart(title: str, name: str, unit: float, shower: Shower) -> Chart:
        series = [
            Line("projects, 10 secrets", [(one["projects"], one[name]["value"] / unit) for one in projects]),
            Line("secrets, 1 project", [(one["secrets"], one[name]["value"] / unit) for one in secrets]),
        ]
        return lines(f"{title}, against the number of projects and of secrets", series, shower)

    return [
        chart("get, median", "median_ns", 1, duration),
        chart("Stopped service: connect to first answer", "start_ns", 1, milliseconds),
        chart("Resident memory, MiB", "resident_bytes", 2**20, plain),
    ]
