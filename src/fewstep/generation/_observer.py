"""Sampling of one batch that records curvature and the paths of a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._adaptive import Adaptive
from .._ends import finite_conversion
from .._noises import Noises
from ..field import Field
from ..metrics import CurvatureMeter
from ..solver import Solver

__all__ = ["Observer", "Point", "stack_paths"]


class Point(NamedTuple):
    """One sample at one time: its state, and the network's estimate of the data."""

    t: float
    state: Tensor
    data: Tensor


class Observer:
    """Samples a batch, and records the paths of its first ``keep`` samples without further network calls."""

    def __init__(self, field: Field, solver: Solver | Adaptive, keep: int = 0) -> None:
        self._field, self._solver = field, solver
        self._meter: CurvatureMeter | None = None
        self.paths: list[list[Point]] = [[] for _ in range(keep)]

    def sample(self, x0: Tensor, noises: Noises) -> tuple[Tensor, Tensor]:
        """Return the samples, and the number of network calls of each; ``noises`` are those that rows add."""
        field, solver = self._field, self._solver
        if isinstance(solver, Adaptive):
            result = solver.sample(field, x0, callback=self._reached)
            return result.x1, result.nfe
        x1 = solver.sample(field, x0, callback=self._called, noises=noises)
        self._point(slice(None), solver.end, x1, None, field.prediction)
        return x1, torch.full((len(x0),), solver.nfe)

    def curvature(self) -> tuple[Tensor, Tensor]:
        """Return curvature and mean square displacement of each sample, on the CPU in float64."""
        assert self._meter is not None, "sample() comes first"
        return self._meter.curvature().cpu().double(), self._meter.displacement().cpu().double()

    def _called(self, j: int, x: Tensor, prediction: Tensor) -> None:
        if isinstance(self._solver, Solver) and j in self._solver.points:
            self._point(slice(None), self._solver.times[j], x, prediction, self._field.prediction)

    def _reached(self, index: Tensor, t: Tensor, x: Tensor, velocity: Tensor) -> None:
        self._point(index, t, x, velocity, "velocity")

    def _point(
        self, index: Tensor | slice, t: Tensor | float, x: Tensor, prediction: Tensor | None, kind: str
    ) -> None:
        if self._meter is None:
            self._meter = CurvatureMeter(x, 0.0 if isinstance(t, Tensor) else t)
        else:
            self._meter.add(x, t, index)
        numbers = range(len(x)) if isinstance(index, slice) else index.tolist()
        rows = [row for row, k in enumerate(numbers) if k < len(self.paths)]
        if not rows:
            return
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(x))[rows]
        states = x[rows]
        data = states if prediction is None else self._data(times, states, prediction[rows], kind)
        for row, time, state, estimate in zip(rows, times.tolist(), states.cpu(), data.cpu(), strict=True):
            self.paths[numbers[row]].append(Point(time, state, estimate))

    def _data(self, t: Tensor, x: Tensor, prediction: Tensor, kind: str) -> Tensor:
        A, B, *_ = finite_conversion(self._field.schedule, t, "data", kind, x.dtype, mean_known=False)
        A, B = (c.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for c in (A, B))
        data: Tensor = A * x + B * prediction
        return data


def stack_paths(paths: Sequence[Sequence[Point]]) -> dict[str, Tensor]:
    """Stack paths of one sample each; the last point of a shorter path is repeated.

    Shape:
        ``states``, ``data``: ``(P, K, ...)``; ``times``: ``(P, K)``.
    """
    P = max(map(len, paths))
    full = [[*path, *[path[-1]] * (P - len(path))] for path in paths]
    return {
        "times": torch.tensor([[point.t for point in path] for path in full], dtype=torch.float64).T,
        "states": torch.stack([torch.stack([point.state for point in path]) for path in full], dim=1),
        "data": torch.stack([torch.stack([point.data for point in path]) for path in full], dim=1),
    }
