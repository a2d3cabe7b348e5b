"""Charts as vector drawings: positions of lines, markers, whiskers and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ._axes import Axis
from ._numbers import finite, place
from .parts import Chart, Series

__all__ = [
    "NARROW",
    "WIDE",
    "Drawing",
    "Label",
    "Line",
    "Point",
    "dashes",
    "drawing",
    "marker",
    "points",
    "thinned",
    "whole",
]

#: Width and height of a chart on wide screens, and on phones.
WIDE, NARROW = (860, 280), (344, 270)
#: Approximate maximum of points drawn per series.
DRAWN = 400
#: Maximum of points per series with markers and whiskers; longer series have a band.
MARKED = 24
#: Pixels from one line of text to the next, and width of a digit.
LINE, LETTER = 15.0, 7.2
#: Least length of the vertical axis, as a share of the values: lines that vary by less look flat.
FLAT = 0.1

#: Lengths of strokes and gaps, one pattern per style.
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2", "12 4", "2 2", "9 3 2 3 2 3", "", "7 3", "2 3", "9 3 2 3")

# Corners on a circle of radius 1, y down, and the factor that makes it look as large as a disc.
_CORNERS: tuple[tuple[float, tuple[tuple[float, float], ...]], ...] = (
    (1.2, ((-0.71, -0.71), (0.71, -0.71), (0.71, 0.71), (-0.71, 0.71))),
    (1.35, ((0, -1), (0.87, 0.5), (-0.87, 0.5))),
    (1.3, ((0, -1), (1, 0), (0, 1), (-1, 0))),
    (1.35, ((0, 1), (0.87, -0.5), (-0.87, -0.5))),
    (1.25, ((0, -1), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31))),
)


@dataclass(frozen=True)
class Point:
    """A point of a series; ``None`` for a missing height or interval."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Label:
    """A name at the end of its line: its position, and the end of the line."""

    x: str
    y: str
    leader: str


@dataclass(frozen=True)
class Line:
    """A drawn series: the paths of its line, band, whiskers and markers, and its label if there is room."""

    name: str
    style: int
    strong: bool
    dashes: str
    long: bool
    line: str
    band: str
    whiskers: str
    marks: str
    label: Label | None


@dataclass(frozen=True)
class Drawing:
    """A chart at one size: its axes, whose ends are its frame, and its lines."""

    width: int
    height: int
    x: Axis
    y: Axis
    lines: Sequence[Line]


def points(series: Series, log_x: bool, log_y: bool) -> list[Point]:
    """Return the points of a series that its axes can show, including gaps, thinned if there are many."""
    found = []
    for x, y, low, high in whole(series):
        at = _shown(x, log_x)
        if at is not None:
            found.append(Point(at, _shown(y, log_y), _shown(low, log_y), _shown(high, log_y)))
    return thinned(found, log_x)


def whole(series: Series) -> list[tuple[float, float | None, float | None, float | None]]:
    """Return all points of a series: ``x``, ``y``, and the ends of the interval.

    Raises:
        ValueError: if their numbers differ.
    """
    columns = {"x": series.x, "y": series.y, "low": series.low, "high": series.high}
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise ValueError(f"page: series {series.name!r} must have as many of each number, not {counts}.")
    nothing: list[None] = [None] * len(series.x)
    return list(zip(series.x, series.y, series.low or nothing, series.high or nothing, strict=True))


def thinned(found: Sequence[Point], log_x: bool, most: int = DRAWN) -> list[Point]:
    """Return at most about ``most`` points, the lowest and the highest of every stretch; gaps are kept."""
    if len(found) <= most:
        return list(found)
    at = [math.log(p.x) if log_x else p.x for p in found]
    length = 2 * (at[-1] - at[0]) / most or 1.0
    kept = {0, len(found) - 1}
    for _, group in groupby(range(len(found)), key=lambda k: int((at[k] - at[0]) / length)):
        stretch = list(group)
        known = [(y, k) for k in stretch if (y := found[k].y) is not None]
        kept.update({min(known)[1], max(known)[1]} if known else stretch[:1])
    return [found[k] for k in sorted(kept)]


def drawing(
    chart: Chart, shown: Sequence[Sequence[Point]], styles: Sequence[int], width: int, height: int
) -> Drawing:
    """Draw a chart at a size in pixels, with names at the ends of the lines if there is enough room."""
    names = [series.name for series in chart.series]
    top, bottom = 30.0, height - 46.0
    room = max(map(_width, names), default=0) + 20
    named = len(names) > 1 and room < 0.25 * width and LINE * len(names) < bottom - top
    heights = [v for line in shown for p in line for v in (p.y, p.low, p.high) if v is not None]
    y = Axis.over(
        heights,
        log=chart.log_y,
        start=bottom,
        end=top,
        gap=36,
        margin=0.04,
        from_zero=not chart.log_y,
        flat=FLAT,
    )
    left = 14 + LETTER * max(map(len, y.labels()), default=1)
    right = width - (room if named else 16)
    x = Axis.over(
        [p.x for line in shown for p in line],
        log=chart.log_x,
        start=left,
        end=right,
        gap=56,
        margin=0.025,
        letter=LETTER,
        at_values=True,
    )
    ends = _ends(shown, x, y) if named else {}
    labels = _labels(ends, right, top, bottom)
    lines = [
        _line(series, line, style, x, y, labels.get(k))
        for k, (series, line, style) in enumerate(zip(chart.series, shown, styles, strict=True))
    ]
    return Drawing(width, height, x, y, lines)


def dashes(style: int, strong: bool) -> str:
    """Return the strokes and gaps of a style; strong lines have no gaps."""
    return "" if strong else _DASHES[style % len(_DASHES)]


def marker(style: int, x: float, y: float, r: float) -> str:
    """Return the path of a style's marker around ``(x, y)``; the first is a disc."""
    kind = style % (len(_CORNERS) + 1)
    if kind == 0:
        return f"M{place(x - r)} {place(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    larger, corners = _CORNERS[kind - 1]
    at = [f"{place(x + r * larger * dx)} {place(y + r * larger * dy)}" for dx, dy in corners]
    return "M" + "L".join(at) + "Z"


def _width(name: str) -> float:
    """Return the approximate width of a name at the end of its line, in pixels."""
    return 7.6 * len(name) + 2.5 * sum(letter in "mwMW" for letter in name)


def _shown(value: float | None, log: bool) -> float | None:
    value = finite(value)
    return None if value is None or (log and value <= 0) else value


def _line(series: Series, shown: Sequence[Point], style: int, x: Axis, y: Axis, label: Label | None) -> Line:
    heights = [(p.x, p.y) for p in shown]
    # An interval with a low end that a logarithmic axis cannot show extends to the edge.
    spans = [
        (p.x, y.low if p.low is None else p.low, p.high)
        for p in shown
        if p.y is not None and p.high is not None
    ]
    few = len(shown) <= MARKED
    tops = [(at, high) for at, _, high in spans]
    bottoms = [(at, low) for at, low, _ in reversed(spans)]
    whiskers = "".join(
        f"M{place(x(at))} {place(y(low))}V{place(y(high))}"
        f"M{place(x(at) - 3)} {place(y(low))}h6M{place(x(at) - 3)} {place(y(high))}h6"
        for at, low, high in spans
    )
    known = [(x(at), y(height)) for at, height in heights if height is not None]
    return Line(
        series.name,
        style,
        series.strong,
        dashes(style, series.strong) if few else "",
        not few,
        _path(heights, x, y),
        "" if few or len(spans) < 2 else _path([*tops, *bottoms], x, y) + "Z",
        whiskers if few else "",
        "".join(marker(style, *at, 5 if series.strong else 4) for at in (known if few else known[-1:])),
        label,
    )


def _path(corners: Sequence[tuple[float, float | None]], x: Axis, y: Axis) -> str:
    return "".join(
        ("M" if k == 0 or corners[k - 1][1] is None else "L") + f"{place(x(at))} {place(y(height))}"
        for k, (at, height) in enumerate(corners)
        if height is not None
    )


def _ends(shown: Sequence[Sequence[Point]], x: Axis, y: Axis) -> dict[int, tuple[float, float]]:
    """Return the ends of the lines, by index."""
    known = {k: [p for p in line if p.y is not None] for k, line in enumerate(shown)}
    return {k: (x(line[-1].x), y(line[-1].y or 0)) for k, line in known.items() if line}


def _labels(
    ends: dict[int, tuple[float, float]], right: float, top: float, bottom: float
) -> dict[int, Label]:
    """Return names beside the ends of their lines, moved apart if they would overlap."""
    order = sorted(ends, key=lambda k: ends[k][1])
    heights = _apart([ends[k][1] for k in order], top, bottom)
    found = {}
    for k, height in zip(order, heights, strict=True):
        at, end = ends[k]
        leader = f"M{place(at + 6)} {place(end)}L{place(right + 6)} {place(height)}"
        moved = abs(height - end) > 3 or right - at > 24
        found[k] = Label(place(right + 10), place(height + 4), leader if moved else "")
    return found


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return increasing heights at least ``LINE`` apart, moved by one sweep down and one up."""
    placed: list[float] = []
    for height in wanted:
        placed.append(max(height, placed[-1] + LINE if placed else top))
    limit = bottom
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], limit)
        limit = placed[k] - LINE
    return placed
