"""`remo-brokerctl audit --report`: the review as one self-contained page.

It has no script and makes no request: everything is HTML, CSS and SVG, so the page opens from disk,
prints, and works with screen readers. Every string from the journal goes through `escape`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from datetime import date, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING

from remo_broker.cli.text import escaped
from remo_broker.cli.times import USEC, shown, shown_short
from remo_broker.ctl.audit_report_style import STYLE
from remo_broker.ctl.audit_summary import ALLOWED, DENIED, QUARTER_USEC, Count, asked, group
from remo_broker.protocol.clock import now_usec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remo_broker.cli.terminal import Output
    from remo_broker.ctl.audit_reader import Record
    from remo_broker.ctl.audit_summary import Group

# Most bars that fit in a chart of some 900 pixels; then the steps a bar may stand for, in quarters
# of an hour.
MOST_BARS = 60
STEPS = (1, 4, 24, 96, 7 * 96, 30 * 96, 365 * 96)
# Colours that can be told apart; the remaining projects share one.
MOST_COLOURS = 6
MATRIX_ROWS, MATRIX_COLUMNS = 30, 24
MOST_ROWS = 500
NAMES_SHOWN = 5
NAMES_LISTED = 1000
CALENDAR_WEEKS = 53
# With no earlier records, a first fetch within this time means nothing.
LEARNING_USEC = 86_400 * USEC
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Report:
    def __init__(self, records: Iterable[Record], earlier: set[tuple[str, str, str]] | None = None) -> None:
        """`earlier`: what was fetched before, in the form of `pair`.

        None if `records` are all there is.
        """
        self.groups = sorted(group(records, by_time=True), key=lambda one: one.first)
        self.total = Count(())
        self.projects: dict[str, Count] = {}
        self.denials: dict[tuple[str, str, str], _Denials] = {}
        self.cells: dict[tuple[str, str], Count] = {}
        self.firsts: dict[tuple[str, str, str], Group] = {}
        for one in self.groups:
            self._add(one)
        begin = self.groups[0].first if self.groups else 0
        self.new = {
            key
            for key, first in self.firsts.items()
            if (first.first > begin + LEARNING_USEC if earlier is None else key not in earlier)
        }

    def _add(self, one: Group) -> None:
        counts = [self.total]
        sample = one.sample
        project, secret = sample.project or "-", sample.text("REMO_SECRET")
        counts.append(self.projects.setdefault(project, Count((project,))))
        name = one.who
        if one.kind == DENIED:
            key = project, name, sample.text("REMO_REASON") or sample.event
            self.denials.setdefault(key, _Denials(key)).add(one)
        if secret is not None:
            counts.append(self.cells.setdefault((name, secret), Count((name, secret))))
            if one.kind == ALLOWED and sample.text("REMO_OUTCOME") == "ok":
                self.firsts.setdefault((project, name, secret), one)
        for count in counts:
            count.add(one, one.count, one.first, one.last)

    def html(self) -> str:
        parts = [
            self._head(),
            self._numbers(),
            self._denied(),
            self._over_time(),
            self._calendar(),
            self._matrix(),
            self._first_seen(),
            "</main></body></html>\n",
        ]
        return "".join(parts)

    def _head(self) -> str:
        span = "no entries"
        if self.groups:
            span = f"{shown(self.groups[0].first)} to {shown(max(one.last for one in self.groups))}"
        title = f"Secret broker audit of {os.uname().nodename}"
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
            '<a class="skip" href="#denials">Skip to the denials</a>'
            f"<header><h1>{escape(title)}</h1><p>{escape(span)}; made {escape(shown(now_usec()))}</p>"
            '<nav aria-label="Sections"><a href="#denials">Denials</a><a href="#time">Over time</a><a href="#days">Days</a>'
            '<a href="#matrix">Who fetched what</a><a href="#first">First fetches</a></nav></header><main>'
        )

    def _numbers(self) -> str:
        total = self.total
        numbers = (
            ("Handed out", total.allowed, ""),
            ("Denied", total.denied, "bad" if total.denied else ""),
            ("Not there", total.missing, ""),
            ("Projects", len([name for name in self.projects if name != "-"]), ""),
            ("New pairs", len(self.new), "new" if self.new else ""),
        )
        cards = "".join(f'<div class="{kind}"><dt>{name}</dt><dd>{count:,}</dd></div>' for name, count, kind in numbers)
        return f'<dl class="numbers">{cards}</dl>'

    # --- over time

    def _over_time(self) -> str:
        heading = '<section aria-labelledby="time"><h2 id="time">Fetches over time, by project</h2>'
        if not self.groups:
            return f"{heading}<p>Nothing was recorded.</p></section>"
        begin = self.groups[0].first // QUARTER_USEC
        end = max(max(one.quarters) for one in self.groups)
        step = next((one for one in STEPS if (end - begin) / one < MOST_BARS), STEPS[-1])
        most = sorted(self.projects, key=lambda name: -(self.projects[name].allowed + self.projects[name].missing))
        named = most[:MOST_COLOURS]
        bars: dict[int, dict[str, int]] = {}
        for one in self.groups:
            name = "" if one.kind == DENIED else one.sample.project or "-"
            kind = name if name == "" or name in named else "others"
            each = one.weight
            for quarter, count in one.quarters.items():
                bar = bars.setdefault((quarter - begin) // step, {})
                bar[kind] = bar.get(kind, 0) + count * each
        begin, step = begin * QUARTER_USEC, step * QUARTER_USEC
        series = [*named, *(["others"] if len(most) > MOST_COLOURS else [])]
        legend = "".join(
            f'<li><span class="key c{place}"></span>{escape(name)}</li>' for place, name in enumerate(series)
        )
        table = _table(
            ["From", *series, "Denied"],
            [
                [
                    shown_short(begin + place * step),
                    *(f"{bar.get(name, 0):,}" for name in series),
                    f"{bar.get('', 0):,}",
                ]
                for place, bar in sorted(bars.items())
            ],
            "Fetches over time, by project",
        )
        return (
            f'{heading}<ul class="legend">{legend}<li><span class="key denied"></span>denied</li></ul>'
            f"{_chart(bars, series, begin, step)}<details><summary>The same as a table</summary>{table}</details></section>"
        )

    def _calendar(self) -> str:
        days: dict[date, list[int]] = {}
        day_of: dict[int, date] = {}
        for one in self.groups:
            denied, each = one.kind == DENIED, one.weight
            for quarter, count in one.quarters.items():
                day = day_of.get(quarter)
                if day is None:
                    day = day_of[quarter] = datetime.fromtimestamp(quarter * QUARTER_USEC / USEC).astimezone().date()
                days.setdefault(day, [0, 0])[denied] += count * each
        heading = '<section aria-labelledby="days"><h2 id="days">Days</h2>'
        if not days:
            return f"{heading}<p>Nothing was recorded.</p></section>"
        last = max(days)
        monday = last - timedelta(days=last.weekday())
        first = max(min(days), last - timedelta(weeks=CALENDAR_WEEKS))
        weeks = (monday - (first - timedelta(days=first.weekday()))).days // 7 + 1
        busiest = max(sum(counts) for counts in days.values())
        names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
        rows = []
        for week in range(weeks):
            start = monday - timedelta(weeks=weeks - 1 - week)
            cells = "".join(_day(start + timedelta(days=one), days, busiest) for one in range(7))
            rows.append(f'<tr><th scope="row">{start:%Y-%m-%d}</th>{cells}</tr>')
        columns = "".join(f'<th scope="col">{name}</th>' for name in names)
        return (
            f'{heading}<p>All requests of a day; a red edge marks days with denials.</p><div class="wide" tabindex="0" role="region" '
            f'aria-label="Days"><table class="calendar"><thead><tr><th scope="col">Week of</th>{columns}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div></section>"
        )

    # --- tables

    def _denied(self) -> str:
        heading = '<section aria-labelledby="denials"><h2 id="denials">Denials</h2>'
        if not self.denials:
            return f"{heading}<p>Nothing was denied.</p></section>"
        ordered = sorted(self.denials.values(), key=lambda one: (-one.count, one.key))
        rows = "".join(one.row() for one in ordered[:MOST_ROWS])
        head = "".join(
            f'<th scope="col">{name}</th>' for name in ("Count", "Who", "Project", "Names", "Reason", "First", "Last")
        )
        return (
            f'{heading}<div class="wide" tabindex="0" role="region" aria-label="Denials"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{_more(len(ordered), MOST_ROWS)}</section>"
        )

    def _matrix(self) -> str:
        heading = '<section aria-labelledby="matrix"><h2 id="matrix">Who fetched what</h2>'
        rows: dict[str, int] = {}
        columns: dict[str, int] = {}
        for (name, secret), count in self.cells.items():
            rank = count.allowed * 1000 + count.missing + count.denied
            rows[name] = rows.get(name, 0) + rank
            columns[secret] = columns.get(secret, 0) + rank
        if not rows:
            return f"{heading}<p>Nothing was fetched.</p></section>"
        top_rows = sorted(rows, key=lambda one: (-rows[one], one))[:MATRIX_ROWS]
        top_columns = sorted(columns, key=lambda one: (-columns[one], one))[:MATRIX_COLUMNS]
        new = {(name, secret) for _, name, secret in self.new}
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in top_columns)
        body = "".join(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(_cell(self.cells.get((name, secret)), (name, secret) in new) for secret in top_columns)
            + "</tr>"
            for name in top_rows
        )
        return (
            f"{heading}<p>Fetches that were handed out; in red those that were denied; <em>new</em> marks a secret that this program "
            'had never fetched before.</p><div class="wide" tabindex="0" role="region" aria-label="Who fetched what">'
            f'<table class="matrix"><thead><tr><th scope="col">Who</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
            f"{_more(len(rows), MATRIX_ROWS, 'programs')}{_more(len(columns), MATRIX_COLUMNS, 'secrets')}</section>"
        )

    def _first_seen(self) -> str:
        ordered = sorted(self.firsts.items(), key=lambda one: -one[1].first)
        rows = [
            [
                shown_short(first.first),
                *(name, project, secret),
                "new" if (project, name, secret) in self.new else "",
            ]
            for (project, name, secret), first in ordered[:MOST_ROWS]
        ]
        table = _table(["First fetch", "Who", "Project", "Secret", "Mark"], rows, "First fetches") if rows else ""
        return (
            '<section aria-labelledby="first"><h2 id="first">First fetches</h2><p>When each program first fetched each secret, the '
            f"latest on top.</p>{table or '<p>Nothing was fetched.</p>'}{_more(len(ordered), MOST_ROWS)}</section>"
        )


class _Denials:
    """Denials of one program in one project for one reason."""

    def __init__(self, key: tuple[str, str, str]) -> None:
        self.key = key
        self.count = 0
        self.first = self.last = 0
        self.names: dict[str, None] = {}

    def add(self, one: Group) -> None:
        self.count += one.count * one.weight
        self.first = min(self.first or one.first, one.first)
        self.last = max(self.last, one.last)
        secret = one.sample.text("REMO_SECRET")
        if secret is not None:
            self.names[secret] = None

    def row(self) -> str:
        project, name, reason = self.key
        names = list(self.names)
        shown_names = ", ".join(map(escape, names[:NAMES_SHOWN]))
        if len(names) > NAMES_SHOWN:
            listed = ", ".join(map(escape, names[:NAMES_LISTED]))
            more = f", and {len(names) - NAMES_LISTED:,} more" if len(names) > NAMES_LISTED else ""
            shown_names = (
                f"<details><summary>{len(names):,} names: {escape(names[0])} … {escape(names[-1])}</summary>"
                f"{listed}{more}</details>"
            )
        return (
            f'<tr><td class="number">{self.count:,}</td><td>{escape(name)}</td><td>{escape(project)}</td>'
            f'<td class="names">{shown_names or "-"}</td><td>{escape(reason)}</td>'
            f'<td class="when">{shown_short(self.first)}</td><td class="when">{shown_short(self.last)}</td></tr>'
        )


def pair(record: Record) -> tuple[str, str, str] | None:
    """Who fetched what for which project; None if nothing was handed out."""
    secret = record.text("REMO_SECRET")
    if secret is None or record.text("REMO_OUTCOME") != "ok":
        return None
    return record.project or "-", asked(record), secret


def _chart(bars: dict[int, dict[str, int]], series: list[str], begin: int, step: int) -> str:
    """Stacked bars upwards, denials downwards. Hidden from screen readers, which get the table."""
    places = max(bars) + 1
    up = max(1, *(sum(count for name, count in bar.items() if name) for bar in bars.values()))
    down = max(bar.get("", 0) for bar in bars.values())
    width, top, bottom = 900, 200, 80 if down else 0
    slot = width / places
    shapes = []
    for place, bar in bars.items():
        x, thick = place * slot + slot * 0.1, max(1.0, slot * 0.8)
        y = float(top)
        for colour, name in enumerate(series):
            height = bar.get(name, 0) * (top - 16) / up
            y -= height
            if height:
                shapes.append(
                    f'<rect class="c{colour}" x="{x:.1f}" y="{y:.1f}" width="{thick:.1f}" height="{height:.1f}"/>'
                )
        if bar.get(""):
            height = max(2.0, bar[""] * (bottom - 10) / down)
            shapes.append(f'<rect class="denied" x="{x:.1f}" y="{top}" width="{thick:.1f}" height="{height:.1f}"/>')
    least = f'<text class="least" x="0" y="{top + bottom}">{down:,} denied</text>' if down else ""
    labels = least + "".join(
        f'<text x="{place * slot:.0f}" y="{top + bottom + 20}" text-anchor="{anchor}">{shown_short(begin + place * step)[:16]}</text>'
        for place, anchor in {places // 2: "middle", 0: "start", places: "end"}.items()
    )
    return (
        f'<svg viewBox="0 0 {width} {top + bottom + 28}" aria-hidden="true" focusable="false">'
        f'<line x1="0" x2="{width}" y1="{top}" y2="{top}"/>{"".join(shapes)}<text x="0" y="1" dominant-baseline="hanging">{up:,}</text>{labels}</svg>'
    )


def _day(day: date, days: dict[date, list[int]], busiest: int) -> str:
    given, denied = days.get(day, (0, 0))
    if not given and not denied:
        return '<td class="empty"></td>'
    level = min(4, 1 + 4 * (given + denied) // (busiest + 1))
    told = f'<span class="hidden">, {denied:,} denied</span>' if denied else ""
    return f'<td class="l{level}{" edge" if denied else ""}">{given + denied:,}{told}</td>'


def _cell(count: Count | None, new: bool) -> str:
    if count is None:
        return "<td></td>"
    parts = [f"{count.allowed:,}" if count.allowed else ""]
    if count.denied:
        parts.append(f'<span class="bad">{count.denied:,}<span class="hidden"> denied</span></span>')
    if count.missing:
        parts.append(f'<span class="none">{count.missing:,} not there</span>')
    if new:
        parts.append("<em>new</em>")
    return f'<td class="number">{" ".join(part for part in parts if part)}</td>'


def _table(header: list[str], rows: list[list[str]], caption: str) -> str:
    """Each row begins with a time."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><td class="when">{escape(row[0])}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _more(count: int, shown_count: int, noun: str = "rows") -> str:
    return f"<p>{count - shown_count:,} more {noun} are not shown.</p>" if count > shown_count else ""


def write_report(output: Output, report: Report, path: str) -> None:
    """Write the page to `path` in one step, readable by its owner only; `-` is standard output."""
    page = report.html()
    if path == "-":
        output.line(page.removesuffix("\n"))
        return
    descriptor, temporary = tempfile.mkstemp(prefix=".audit-", dir=os.path.dirname(path) or ".")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    output.line(f"Wrote {escaped(path)}.")
