"""Reference paths with dense output and a gradient in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import reference
from ..field import Field
from ..pairs import Pairs

__all__ = ["DensePath", "dense_path"]


class DensePath(NamedTuple):
    """Reference states and velocities on a grid, with cubic Hermite interpolation in between.

    Shape:
        ``times``: ``(K,)``, float64, on the CPU like tables; ``states`` and ``velocities``: ``(K, B, ...)``.
    """

    times: Tensor
    states: Tensor
    velocities: Tensor

    @property
    def end(self) -> Tensor:
        """The last time."""
        return self.times[-1]

    def at(self, t: Tensor) -> Tensor:
        """Return ``x_aux(t) = x(sg t) + u(x(sg t), sg t) (t - sg t)`` with ``sg`` the stop-gradient.

        Its value is that of the path, and its derivative in time is the interpolant's velocity. The times,
        ``(n,)``, are within the grid; the states are ``(n, B, ...)``.
        """
        now = t.detach().clone()
        k = (torch.searchsorted(self.times, now, right=True) - 1).clamp(0, len(self.times) - 2)
        column = (-1, *[1] * (self.states.ndim - 1))
        h = (self.times[k + 1] - self.times[k]).reshape(column)
        z = (now - self.times[k]).reshape(column) / h
        h, z = h.to(self.states), z.to(self.states)
        k = k.to(self.states.device)
        x, y = self.states[k], self.states[k + 1]
        u, v = h * self.velocities[k], h * self.velocities[k + 1]
        # Hermite form around x: the tangent with a quadratic and a cubic correction.
        bend, twist = 3 * (y - x) - 2 * u - v, u + v - 2 * (y - x)
        state = x + z * (u + z * (bend + z * twist))
        slope = (u + z * (2 * bend + 3 * z * twist)) / h
        return state + slope * (t - now).reshape(column).to(self.states)

    def take(self, index: Tensor | slice) -> DensePath:
        """Return the paths of some samples."""
        return DensePath(self.times, self.states[:, index], self.velocities[:, index])


@torch.no_grad()
def dense_path(
    field: Field, pairs: Pairs, *, rtol: float, atol: float, max_nfe: int = 2000, nodes: int = 65
) -> tuple[DensePath, int]:
    """Solve for the paths of given pairs; return them and the number of network calls.

    The nodes form a cosine grid, dense at both ends, where trained flows curve most.
    """
    grid = (1 - torch.linspace(0, torch.pi, nodes, dtype=torch.float64).cos()) / 2
    field = pairs.bind(field)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    options["steps"] = pairs.provenance.get("steps")  # those of a fixed grid, if the pairs are from one
    states, nfe = reference.solve(field, pairs.x0, times=grid.tolist(), **options)
    velocities = torch.stack([field(x, float(t)) for t, x in zip(grid, states, strict=True)])
    return DensePath(grid, states, velocities), (nfe + nodes) * len(pairs)
