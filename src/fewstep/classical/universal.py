"""Solvers that were fitted once, to many exact fields, for models that are not fitted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import ClassVar

import torch
from torch import Tensor

from .._ranges import POSITIVE, check_range
from .._table import Reduced, Table, square
from ..schedules import CondOT, Schedule
from ..schedules._schedule import SchedulePoint, as_time
from ..solver import Solver

__all__ = ["TABLES", "Standard", "data_scale", "universal"]

#: Tables of velocities for data of scale 1, by number of calls.
TABLES = "universal.json"


@dataclass(frozen=True)
class Standard(Schedule):
    """``alpha = t / scale, sigma = 1 - t``: CondOT of the data divided by their scale."""

    name: ClassVar[str] = "standard"
    scale: float = 1.0

    def _at(self, t: Tensor) -> SchedulePoint:
        one = torch.ones_like(t)
        return SchedulePoint(t / self.scale, 1 - t, one / self.scale, -one)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(as_time(log_snr) + math.log(self.scale))


def universal(nfe: int, schedule: Schedule | None = None, *, scale: float) -> Solver:
    """Return the solver with ``nfe`` calls that was fitted to many exact fields at once.

    It is a non-stationary solver for data of scale 1, made by ``benchmarks/universal.py``. At another scale
    it makes the same steps on the divided data, whose path has the same states, up to factors, at shifted
    times. Times shift with the resolution of images likewise (Esser et al. 2024, arXiv:2403.03206).

    On smooth models that were not in the fit it had .37 to .93 of the error of the best of eleven classical
    solvers. On a network that ripples over time it had .89 to 1.72 of it, as ripples decide where few calls
    fall; fit such a network, or measure (docs/results/fitting-choices.md, "Universal solvers").

    Args:
        nfe: number of network calls, one of ``4, 6, 8``.
        schedule: the network's schedule, ``CondOT()`` by default. It should begin in (nearly) pure noise.
        scale: the scale of the data, from :func:`data_scale`.

    Raises:
        ValueError: on a number of calls without a table, a scale that is not positive, or a schedule that
            begins with more signal than the second call needs.
    """
    tables = json.loads((files("fewstep.classical") / TABLES).read_text(encoding="utf-8"))
    if str(nfe) not in tables:
        raise ValueError(f"universal: nfe must be one of {', '.join(tables)}, not {nfe!r}.")
    (scale,) = check_range("universal", POSITIVE, scale=scale)
    target, source = schedule or CondOT(), Standard(scale)
    found = tables[str(nfe)]
    times, a = (torch.tensor(found[key], dtype=torch.float64) for key in ("times", "a"))
    b = square(found["b"])
    first = float(source.inverse_log_snr(target.log_snr(0.0)))
    if first >= times[1]:
        raise ValueError(
            f"universal: schedule {target!r} begins with more signal than the second call needs, at data of "
            f"scale {scale:g}; it must begin in nearly pure noise. Take another solver, or fit one."
        )
    # Where the schedule begins a little later, the solver's x_0 is the initial state less a step back.
    times[0], b[:, 0] = first, b[:, 0] - first * a
    table = Table.from_reduced(Reduced(times, a, b))
    solver = Solver.from_table(table, tuple(range(nfe + 1)), name="universal")
    return replace(solver.reschedule(source, target), name=f"universal-{nfe}")


def data_scale(samples: Tensor) -> float:
    """Return the scale of data: the standard deviation of principal components, averaged.

    ``exp(sum_i v_i log v_i / (2 sum_i v_i))``, where the ``v_i`` are the variances along the principal
    components: the geometric mean of their standard deviations, weighted by variance. If all components are
    alike it is the standard deviation. For images it is larger, and grows with the resolution.

    Args:
        samples: at least 64 samples of the data or the model, ``(B, ...)``. The tables were fitted at scales
            from 64 samples; from more the scale is a little smaller.

    Raises:
        ValueError: when there are fewer than two samples, or they are all equal.
    """
    flat = samples.double().flatten(1)
    away = flat - flat.mean(0)
    gram = away @ away.T if len(flat) < flat.shape[1] else away.T @ away
    v = torch.linalg.eigvalsh(gram / len(flat)).clamp(min=0)
    if len(flat) < 2 or not v.sum() > 0:
        raise ValueError(f"data_scale: samples must be several different ones, not {len(flat)} alike.")
    return float((torch.special.xlogy(v, v).sum() / (2 * v.sum())).exp())
