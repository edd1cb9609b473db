"""Charts as SVG, written by hand: greys and two hues that read on a light and on a dark page
alike."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.figures import Shower

WIDTH = 900
LABELS = 370  # where the bars begin
PLOT_LEFT, PLOT_HEIGHT = 90, 170
ROW = 24
TITLE = 34
MARGIN = 16
# Legible on white and on near-black: contrast above 4 to both.
TEXT, FAINT, STRONG, PLAIN = "#76797e", "#76797e55", "#2f86d6", "#8a8f98"
HUES = (STRONG, "#d9772b", "#3a9d5d")
FONT = "font-family='system-ui, sans-serif' font-size='12'"


@dataclasses.dataclass(frozen=True)
class Bar:
    label: str
    value: float
    low: float
    high: float
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    label: str
    points: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Chart:
    """Elements that begin at y 0, and how high they are together."""

    height: float
    elements: list[str]


@dataclasses.dataclass(frozen=True)
class Scale:
    """From values to coordinates."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        low, high, value = (self._place(number) for number in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / ((high - low) or 1)

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.logarithmic else value

    def ticks(self) -> list[float]:
        """Powers of ten, or four or five round numbers."""
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def bars(title: str, rows: Sequence[Bar], show: Shower) -> Chart:
    """Horizontal bars on a logarithmic scale, a whisker for the range of the rounds."""
    # A logarithm has no zero; the shortest bar gets half a decade at least.
    low = 10 ** math.floor(math.log10(min(row.low for row in rows) / 3))
    high = 10 ** math.ceil(math.log10(max(row.high for row in rows)))
    scale = Scale(low, high, LABELS, WIDTH - 90, logarithmic=True)
    bottom = TITLE + ROW * len(rows)
    elements = [_text(MARGIN, 20, title, weight="bold")]
    for tick in scale.ticks():
        x = scale.at(tick)
        elements.append(_line(x, TITLE - 4, x, bottom, FAINT))
        elements.append(_text(x, bottom + 16, show(tick), anchor="middle"))
    for number, row in enumerate(rows):
        y = TITLE + ROW * number
        middle = y + ROW / 2
        colour = STRONG if row.strong else PLAIN
        width = scale.at(row.value) - LABELS
        elements.append(_text(LABELS - 8, middle + 4, row.label, anchor="end"))
        elements.append(
            f"<rect x='{LABELS}' y='{y + 4:.1f}' width='{width:.1f}' height='{ROW - 8}' rx='2' fill='{colour}'/>"
        )
        elements.append(_line(scale.at(row.low), middle, scale.at(row.high), middle, TEXT, width=2))
        elements.append(_text(scale.at(row.high) + 6, middle + 4, show(row.value)))
    return Chart(bottom + 30, elements)


def lines(
    title: str, series: Sequence[Line], show: Shower, *, logarithmic: bool = True, x_show: Shower | None = None
) -> Chart:
    """Lines with points; `logarithmic` is about the horizontal axis. The vertical one begins at
    zero."""
    xs = [x for line in series for x, _ in line.points]
    across = Scale(min(xs), max(xs), PLOT_LEFT, WIDTH - 200, logarithmic)
    top, bottom = TITLE, TITLE + PLOT_HEIGHT
    highest = max(y for line in series for _, y in line.points) * 1.15 or 1
    up = Scale(0, highest, bottom, top, logarithmic=False)
    elements = [_text(MARGIN, 20, title, weight="bold")]
    for tick in up.ticks():
        elements.append(_line(PLOT_LEFT, up.at(tick), WIDTH - 200, up.at(tick), FAINT))
        elements.append(_text(PLOT_LEFT - 8, up.at(tick) + 4, show(tick), anchor="end"))
    for tick in across.ticks():
        label = x_show(tick) if x_show else f"{tick:,.0f}"
        elements.append(_text(across.at(tick), bottom + 18, label, anchor="middle"))
    for number, line in enumerate(series):
        hue = HUES[number % len(HUES)]
        places = [(across.at(x), up.at(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        elements.append(f"<polyline points='{path}' fill='none' stroke='{hue}' stroke-width='2'/>")
        if len(places) <= 20:
            elements += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{hue}'/>" for x, y in places]
        y = top + 12 + 20 * number
        elements.append(_line(WIDTH - 190, y, WIDTH - 172, y, hue, width=3))
        elements.append(_text(WIDTH - 166, y + 4, line.label))
    return Chart(bottom + 34, elements)


def page(charts: Sequence[Chart], caption: str) -> str:
    """The charts below one another, and below them a line of small print."""
    parts, y = [], float(MARGIN)
    for chart in charts:
        parts.append(f"<g transform='translate(0 {y:.1f})'>{''.join(chart.elements)}</g>")
        y += chart.height + MARGIN
    small = []
    for line in _wrapped(caption, 130):
        small.append(_text(MARGIN, y + 4, line, size=11))
        y += 16
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y + 8:.0f}' width='{WIDTH}' role='img' {FONT}>"
    )
    return "\n".join([head, f"<title>{escape(caption)}</title>", *parts, *small, "</svg>", ""])


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 12) -> str:
    look = f"text-anchor='{anchor}' font-weight='{weight}' font-size='{size}' fill='{TEXT}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {look}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='{colour}' stroke-width='{width}'/>"


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]
