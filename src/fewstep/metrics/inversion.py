"""The round trip from data to noise and back (inversion)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..field import Field
from ..solver import Solver
from .errors import per_sample_mse
from .estimate import Estimate

__all__ = ["Inversion", "inversion_error"]


@dataclass(frozen=True)
class Inversion:
    """The errors of a round trip from data to noise and back.

    Args:
        error: RMSE between the given and the recovered data, as :func:`fewstep.metrics.rmse`.
        latent: mean square of the recovered noises, per dimension: 1 for standard normal ones.
        nfe: network calls of one round trip.
    """

    error: Estimate
    latent: Estimate
    nfe: int

    def __str__(self) -> str:
        return f"round trip RMSE {self.error}, latent mean square {self.latent.value:.4g}, {self.nfe} calls"


def inversion_error(
    field: Field,
    solver: Solver,
    x1: Tensor,
    *,
    inverse: Solver | None = None,
    batch: int = 256,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> Inversion:
    """Solve from data to noise and back, and compare with the data.

    Editing and interpolation of given images rely on this. It does not measure a solver's accuracy: the
    errors of both directions can cancel. Each is of size ``h^p``, where ``p`` is the order; the leading terms
    add up for odd ``p`` and cancel for even ``p``, so that the round trip has an error of ``h^(p + 1)``. The
    mean square of the recovered noises shows whether they are typical initial noises of the model.

    Args:
        field: the model.
        solver: from noise to data.
        x1: data, ``(B, ...)``.
        inverse: from data to noise, for ``field.reversed()``; by default ``solver``, which must then hold for
            any schedule.
        batch: samples at once.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample, or one row for all; see :meth:`fewstep.Field.bind`.

    Raises:
        ValueError: when there are no data, a condition has a wrong number of rows, or a solver is bound to
            another schedule, or adds noise.
    """
    if not len(x1):
        raise ValueError(f"inversion_error: x1 must hold at least one sample, not shape {tuple(x1.shape)}.")
    for each in (solver, inverse or solver):
        each.check_ode("inversion_error")
    bound, there = field.bind(conditions, per_sample, len(x1)), inverse or solver
    errors, squares = [], []
    for start in range(0, len(x1), batch):
        part = slice(start, start + batch)
        own = bound.rows(part)
        noise = own.initial_noise(there.sample(own.reversed(), x1[part]))
        errors.append(per_sample_mse(solver.sample(own, noise), x1[part]))
        squares.append(per_sample_mse(noise, torch.zeros_like(noise)))
    return Inversion(
        Estimate.of(torch.cat(errors).sqrt()),
        Estimate.of(torch.cat(squares)),
        there.nfe + solver.nfe,
    )
