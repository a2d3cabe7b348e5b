"""Data in the plane: two Gaussians, a checkerboard and a tree, with the noise that flows start from."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from two_gaussians import NOISE_STD, draw

__all__ = ["PLANES", "Plane", "checkerboard", "tree"]


class Plane(NamedTuple):
    """Data ``draw(count, seed)`` in the plane, and the standard deviations of the noise."""

    draw: Callable[[int, int], Tensor]
    noise_std: Tensor


def checkerboard(count: int, seed: int) -> Tensor:
    """Return points of the dark cells of a board of 4 x 4 on [-2, 2] x [-2, 2], as many in each."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.tensor([(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0])
    inside = torch.rand(count, 2, generator=generator)
    return cells[torch.arange(count) % len(cells)] - 2 + inside


def tree(count: int, seed: int) -> Tensor:
    """Return points of a tree: a trunk that forks seven times, in about [-2, 2] x [-2, 2]."""
    generator = torch.Generator().manual_seed(seed)
    starts, ends, widths = _branches()
    lengths = (ends - starts).norm(dim=1)
    k = torch.multinomial(lengths * widths, count, replacement=True, generator=generator)
    along = torch.rand(count, 1, generator=generator)
    across = widths[k, None] * (torch.rand(count, 1, generator=generator) - 0.5)
    way = (ends - starts)[k]
    normal = way.flip(1) * torch.tensor([-1.0, 1.0]) / lengths[k, None]
    return starts[k] + along * way + across * normal


def _branches() -> tuple[Tensor, Tensor, Tensor]:
    """Return starts and ends ``(K, 2)``, and widths ``(K,)``, of the trunk and all branches."""
    found, tips = [], [(0.0, -2.0, math.pi / 2, 1.2, 0.24)]
    for _ in range(8):
        grown = []
        for x, y, angle, length, width in tips:
            u, v = x + length * math.cos(angle), y + length * math.sin(angle)
            found.append((x, y, u, v, width))
            grown += [(u, v, angle + turn, 0.72 * length, 0.66 * width) for turn in (-0.45, 0.38)]
        tips = grown
    rows = torch.tensor(found)
    return rows[:, :2], rows[:, 2:4], rows[:, 4]


PLANES = {
    "gaussians": Plane(draw, NOISE_STD),
    "checkerboard": Plane(checkerboard, torch.ones(2)),
    "tree": Plane(tree, torch.ones(2)),
}
