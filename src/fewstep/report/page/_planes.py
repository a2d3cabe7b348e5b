"""Paths in the plane as vector drawings on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import NamedTuple

import torch
from torch import Tensor

from ._axes import Axis
from ._numbers import evenly, place
from .parts import Planes

__all__ = ["SIDE", "Plane", "Window", "planes_view", "window"]

#: Maximum of paths drawn, of points per path, of paths with an arrow, and of points behind them.
PATHS, STOPS, ARROWS, BEHIND = 150, 40, 30, 1000
#: Side length in pixels.
SIDE = 240
#: Share of the coordinates at either end that may lie outside.
OUTSIDE = 0.002


@dataclass(frozen=True)
class Plane:
    """One drawing: paths of the points behind, of lines, arrows, starts and ends, and what is not drawn."""

    name: str
    behind: str
    lines: str
    arrows: str
    starts: str
    ends: str
    x: Axis
    y: Axis
    count: int
    notes: str


class Window(NamedTuple):
    """The drawn square: its centre ``(2,)``, and half its side."""

    centre: Tensor
    reach: float

    def pixels(self, states: Tensor) -> Tensor:
        """Return pixels of points ``(..., 2)``; far ones are clamped outside, to keep their digits few."""
        unit = (states.detach().double().cpu() - self.centre) / self.reach
        return ((unit * unit.new_tensor([1.0, -1.0]) + 1) * (SIDE / 2)).nan_to_num(1e4).clamp(-999, 999)

    def axes(self) -> list[Axis]:
        """Return the horizontal and the vertical axis."""
        ends = [(float(centre - self.reach), float(centre + self.reach)) for centre in self.centre]
        (left, right), (low, high) = ends
        return [
            Axis.over((left, right), log=False, start=0, end=SIDE, gap=60),
            Axis.over((low, high), log=False, start=SIDE, end=0, gap=60),
        ]


def window(parts: Iterable[Planes]) -> Window:
    """Return the window that contains nearly all points of paths ``(P, B, 2)``.

    Raises:
        ValueError: if the paths are not of points in the plane.
    """
    known = []
    for name, states in (item for part in parts for item in part.paths.items()):
        if states.ndim != 3 or states.shape[-1] != 2:
            raise ValueError(
                f"page: the paths of {name!r} must be points in the plane, of shape (P, B, 2), not "
                f"{tuple(states.shape)}; pick two coordinates."
            )
        known.append(states.detach().double().cpu().reshape(-1, 2))
    every = torch.cat([torch.zeros(0, 2).double(), *known])
    every = every[every.isfinite().all(1)]
    if not len(every):
        every = torch.zeros(1, 2).double()
    low, high = (_quantile(every, part) for part in (OUTSIDE, 1 - OUTSIDE))
    return Window((low + high) / 2, float((high - low).max()) / 2 * 1.06 or 1.0)


def planes_view(paths: Mapping[str, Tensor], seen: Window, behind: Tensor | None = None) -> list[Plane]:
    """Return drawings of paths ``(P, B, 2)`` in a window, in front of points ``(B, 2)``."""
    dots = ""
    if behind is not None:
        dots = _dots(seen.pixels(behind[evenly(len(behind), BEHIND)]).tolist())
    return [_plane(name, states, seen, dots) for name, states in paths.items()]


def _quantile(points: Tensor, part: float) -> Tensor:
    """Return the quantile of each coordinate, by sorting, as ``torch.quantile`` has a size limit."""
    ordered = points.sort(0).values
    return ordered[round(part * (len(ordered) - 1))]


def _plane(name: str, states: Tensor, seen: Window, behind: str) -> Plane:
    P, B, _ = states.shape
    pixels = seen.pixels(states)
    ends = 2 * pixels[-1] / SIDE - 1
    columns = evenly(B, PATHS)
    rows = evenly(P, STOPS)
    notes = [f"{len(columns)} of {B} paths"] if len(columns) < B else []
    if outside := int((~(ends.abs() <= 1).all(1)).sum()):
        notes.append(f"{outside} end outside")
    x, y = seen.axes()
    drawn = pixels[rows][:, columns].transpose(0, 1).tolist()
    return Plane(
        name,
        behind,
        "".join("M" + "L".join(f"{place(x)} {place(y)}" for x, y in path) for path in drawn),
        "".join(_arrow(drawn[k]) for k in evenly(len(drawn), ARROWS)),
        _dots([path[0] for path in drawn]),
        _dots([path[-1] for path in drawn]),
        x,
        y,
        B,
        ", ".join(notes),
    )


def _arrow(path: Sequence[Sequence[float]]) -> str:
    """Return an arrowhead halfway along a path, in its direction; empty for a path that is too short."""
    steps = [(x, y, u - x, v - y) for (x, y), (u, v) in zip(path, path[1:], strict=False)]
    left = sum(hypot(dx, dy) for _, _, dx, dy in steps) / 2
    if left < 6:
        return ""
    for x, y, dx, dy in steps:
        length = hypot(dx, dy)
        if length >= left:
            dx, dy = dx / length, dy / length
            tip = x + left * dx, y + left * dy
            break
        left -= length
    ends = [(tip[0] - 6 * dx - side * dy, tip[1] - 6 * dy + side * dx) for side in (3, -3)]
    corners = [ends[0], tip, ends[1]]
    return "M" + "L".join(f"{place(u)} {place(v)}" for u, v in corners)


def _dots(points: Sequence[Sequence[float]]) -> str:
    # Lines of zero length: with round caps they are discs as wide as the stroke.
    return "".join(f"M{place(x)} {place(y)}h0" for x, y in points)
