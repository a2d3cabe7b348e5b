"""Paths in the plane as vector drawings on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ._numbers import evenly, place

__all__ = ["Plane", "Window", "planes_view", "window"]

#: Maximum of paths drawn, and of points per path.
PATHS, STOPS = 150, 40
#: Side length in pixels.
SIDE = 240
#: Share of the coordinates at either end that may lie outside.
OUTSIDE = 0.002


@dataclass(frozen=True)
class Plane:
    """One drawing: the path of all lines, the paths of their start and end points, and what is not drawn."""

    name: str
    lines: str
    starts: str
    ends: str
    count: int
    notes: str


class Window(NamedTuple):
    """The drawn square: its centre ``(2,)``, and half its side."""

    centre: Tensor
    reach: float


def window(groups: Iterable[Mapping[str, Tensor]]) -> Window:
    """Return the window that contains nearly all points of paths ``(P, B, 2)``.

    Raises:
        ValueError: if the paths are not of points in the plane.
    """
    known = []
    for name, states in (item for paths in groups for item in paths.items()):
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


def planes_view(paths: Mapping[str, Tensor], seen: Window) -> list[Plane]:
    """Return drawings of paths ``(P, B, 2)`` in a window."""
    return [_plane(name, states.detach().double().cpu(), seen) for name, states in paths.items()]


def _quantile(points: Tensor, part: float) -> Tensor:
    """Return the quantile of each coordinate, by sorting, as ``torch.quantile`` has a size limit."""
    ordered = points.sort(0).values
    return ordered[round(part * (len(ordered) - 1))]


def _plane(name: str, states: Tensor, seen: Window) -> Plane:
    P, B, _ = states.shape
    unit = (states - seen.centre) / seen.reach
    # Far points are clamped outside the visible area, to keep their digits few.
    pixels = ((unit * unit.new_tensor([1.0, -1.0]) + 1) * (SIDE / 2)).nan_to_num(1e4).clamp(-999, 999)
    ends = unit[-1]
    columns = evenly(B, PATHS)
    rows = evenly(P, STOPS)
    notes = [f"{len(columns)} of {B} paths"] if len(columns) < B else []
    if outside := int((~(ends.abs() <= 1).all(1)).sum()):
        notes.append(f"{outside} end outside")
    drawn = pixels[rows][:, columns].transpose(0, 1).tolist()
    return Plane(
        name,
        "".join("M" + "L".join(f"{place(x)} {place(y)}" for x, y in path) for path in drawn),
        _dots([path[0] for path in drawn]),
        _dots([path[-1] for path in drawn]),
        B,
        ", ".join(notes),
    )


def _dots(points: Sequence[Sequence[float]]) -> str:
    # Lines of zero length: with round caps they are discs as wide as the stroke.
    return "".join(f"M{place(x)} {place(y)}h0" for x, y in points)
