"""Charts of pages as matplotlib figures, drawn from the same positions."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from ..._extras import require
from ._chart import WIDE, Drawing, Line, drawing, points
from ._context import Context, text_of
from .parts import Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path

__all__ = ["chart_figure"]

#: Pixels above the drawing for its title.
_TITLE = 34
#: Points of matplotlib for a pixel of the page.
_POINT = 0.72


def chart_figure(chart: Chart) -> Figure:
    """Return the wide drawing of a chart, in the colours of a light page, as a matplotlib figure.

    Its axes count pixels of the page, from the upper left corner; one inch is 100 of them.
    """
    styles = Context.of([chart]).styles
    shown = [points(series, chart.log_x, chart.log_y) for series in chart.series]
    view = drawing(chart, shown, [styles[series.name] for series in chart.series], *WIDE)
    size = (view.width / 100, (view.height + _TITLE) / 100)
    figure: Figure = require("matplotlib.figure", "plot").Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, view.width), ylim=(view.height, -_TITLE))
    axes.set_axis_off()
    axes.set_title(chart.title, loc="left", x=0.004, y=1, pad=-16, fontsize=11, color=_colour("ink"))
    _draw_axes(axes, chart, view)
    for line in sorted(view.lines, key=lambda line: line.strong):
        _draw_line(axes, line)
    return figure


def _draw_axes(axes: Any, chart: Chart, view: Drawing) -> None:
    soft: dict[str, Any] = {"color": _colour("soft"), "fontsize": 13 * _POINT}
    left, right, bottom = view.x.start, view.x.end, view.y.start
    for at, text in view.y.marks():
        _draw(axes, f"M{left} {at}H{right}", "rule", 1)
        axes.text(left - 8, float(at) + 4, text, ha="right", **soft)
    for at, text in view.x.marks():
        _draw(axes, f"M{at} {bottom}V{bottom + 5}", "edge", 1)
        axes.text(float(at), bottom + 19, text, ha="center", **soft)
    _draw(axes, f"M{left} {bottom}H{right}", "edge", 1)
    axes.text(4, 14, chart.y_label, **soft)
    axes.text(right, view.height - 6, chart.x_label, ha="right", **soft)


def _draw_line(axes: Any, line: Line) -> None:
    """Draw a series with the strokes of the style sheet."""
    colour = f"s{line.style}"
    wide = (2.2 if line.strong else 1.1) if line.long else (3.2 if line.strong else 1.8)
    if line.band:
        _draw(axes, line.band, colour, 0, filled=colour, alpha=0.16)
    if line.whiskers:
        _draw(axes, line.whiskers, colour, 1.2, alpha=0.75)
    if line.line:
        _draw(axes, line.line, colour, wide, dashes=line.dashes, label=line.name)
    if line.marks:
        hollow = line.style > 5
        edge, inside, stroke = (colour, "paper", 1.8) if hollow else ("paper", colour, 1)
        _draw(axes, line.marks, edge, stroke, filled=inside)
    if line.label is not None:
        if line.label.leader:
            _draw(axes, line.label.leader, colour, 0.8, alpha=0.55)
        weight = "bold" if line.strong else "normal"
        at = float(line.label.x), float(line.label.y)
        axes.text(*at, line.name, color=_colour(colour), fontsize=13 * _POINT, weight=weight)


def _draw(
    axes: Any, path: str, colour: str, width: float, *, filled: str = "", dashes: str = "", **options: Any
) -> None:
    patches = require("matplotlib.patches", "plot")
    # Matplotlib multiplies the lengths of strokes by the width of the line.
    style: Any = (0, [float(length) / width for length in dashes.split()]) if dashes else "-"
    patch = patches.PathPatch(
        _path(path),
        edgecolor=_colour(colour),
        facecolor=_colour(filled) if filled else "none",
        linewidth=width * _POINT,
        linestyle=style,
        capstyle="butt",
        **options,
    )
    axes.add_patch(patch)


def _path(text: str) -> Path:
    """Return a path of SVG, of the commands that charts use: M, L, H, V, h, a (half a circle) and Z."""
    path = require("matplotlib.path", "plot").Path
    corners: list[tuple[float, float]] = []
    codes: list[int] = []
    x, y = 0.0, 0.0
    for command, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", text):
        values = [float(number) for number in numbers.split()]
        if command == "a":
            radius, right = values[0], values[-2]
            half = path.arc(180, 360) if right > 0 else path.arc(0, 180)
            x += right
            corners += [(x - right / 2 + radius * dx, y + radius * dy) for dx, dy in half.vertices[1:]]
            codes += list(half.codes[1:])
            continue
        if command in "ML":
            x, y = values
        elif command == "H":
            (x,) = values
        elif command == "V":
            (y,) = values
        elif command == "h":
            x += values[0]
        corners.append((x, y))
        codes.append({"M": path.MOVETO, "Z": path.CLOSEPOLY}.get(command, path.LINETO))
    return path(corners, codes)  # type: ignore[no-any-return]


@cache
def _colour(name: str) -> str:
    """Return a colour of the style sheet, for light pages."""
    found = re.search(rf"--{name}: (#\w+);", text_of("page.css"))
    if found is None:
        raise KeyError(name)
    return found[1]
