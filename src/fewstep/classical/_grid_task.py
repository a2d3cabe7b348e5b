"""Common parts of time grid searches: candidates, steps between them, and exact trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import reference
from .._conditions import refuse_conditions
from .._device import widest
from .._network import state_type
from .._path import check_noise
from ..field import Field
from ..pairs import Pairs, field_noise
from ..schedules import Schedule
from ._grids import cosine, resolve

__all__ = ["Rule", "SearchTask", "noises", "rmse"]

#: Steps of the default grid of candidates, as in GITS.
CANDIDATE_STEPS = 60

Rule = Literal["euler", "ddim"]


class SearchTask(NamedTuple):
    """A field bound to the conditions of the noises, the noises of a search and the candidate times.

    One step from candidate ``i`` to ``j`` is ``x_j = a[i, j] x_i + b[i, j] u_i``, ``u_i`` the velocity. The
    coefficients are on the device of the noises.
    """

    field: Field
    times: list[float]
    x0: Tensor
    a: Tensor
    b: Tensor
    tolerances: Mapping[str, Any]

    @classmethod
    def make(
        cls,
        field: Field,
        x0: Tensor,
        steps: int,
        rule: Rule,
        candidates: Sequence[float] | None,
        tolerances: Mapping[str, Any],
    ) -> SearchTask:
        """Make the task from the arguments of a search, or raise if they do not match."""
        default = cosine(max(CANDIDATE_STEPS, 2 * steps))
        times = resolve(None, default if candidates is None else candidates)
        if times[0] != 0 or len(times) <= steps:
            raise ValueError(
                f"candidates: must start at 0 and be more than steps={steps}, not {len(times)} times from "
                f"{float(times[0]):g}."
            )
        a, b = (c.to(x0.device, widest(x0.device)) for c in _one_step(rule, times, field.schedule))
        return cls(field, times.tolist(), x0, a, b, tolerances)

    def chunks(self, batch: int) -> list[slice]:
        return [slice(i, i + batch) for i in range(0, len(self.x0), batch)]

    def solve(self, index: slice) -> tuple[Tensor, int]:
        """Return the exact states of some samples at all candidates, ``(K, B, ...)``, and the calls made."""
        states, nfe = reference.solve(
            self.field.rows(index), self.x0[index], times=self.times, **self.tolerances
        )
        return states, nfe * states.shape[1]

    def velocity(self, x: Tensor, i: int, index: slice) -> Tensor:
        return self.field.rows(index)(x, self.times[i])

    def step(self, x: Tensor, u: Tensor, i: int) -> Tensor:
        """Return the states at all candidates after ``i``, ``(K - 1 - i, B, ...)``, one step from ``i``."""
        column = (-1, *[1] * x.ndim)
        a, b = (c[i, i + 1 :].to(x).reshape(column) for c in (self.a, self.b))
        return a * x + b * u

    def step_from(self, source: Tensor, x: Tensor, u: Tensor) -> Tensor:
        """Return the states at all candidates ``j``, ``(K, B, ...)``, by one step from ``source[j]``."""
        column, i = (-1, *[1] * (x.ndim - 1)), source.to(x.device)
        j = torch.arange(len(i), device=x.device)
        a, b = (c[i, j].to(x).reshape(column) for c in (self.a, self.b))
        return a * x[i] + b * u[i]


def rmse(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square of the difference over the dimensions of a sample: ``(n, B, ...)`` to ``(n, B)``."""
    return (x - y).flatten(2).square().mean(dim=2).sqrt()


def noises(
    field: Field,
    noise: int | Tensor | Pairs,
    seed: int,
    conditions: Mapping[str, Any] | None,
    per_sample: Mapping[str, Any] | None,
    device: torch.device | str | None,
) -> tuple[Field, Tensor]:
    """Return the field, bound to the conditions of the noises, and the noises."""
    if isinstance(noise, Pairs):
        refuse_conditions("noise", conditions, per_sample)
        return noise.bind(field), noise.x0
    if isinstance(noise, int):
        noise = field_noise(field, noise, seed, device)
    check_noise(noise, "noise", some=True)
    return field.bind(conditions, per_sample, len(noise), "noises"), noise.to(state_type(noise.dtype))


def _one_step(rule: Rule, times: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Return ``a, b`` of ``x_j = a[i, j] x_i + b[i, j] u_i`` for one step between any two of the times."""
    if rule == "euler":
        h = times - times[:, None]
        return torch.ones_like(h), h
    if rule != "ddim":
        raise ValueError(f"rule: must be 'euler' or 'ddim', not {rule!r}.")
    # Solve x_i and u_i for data and noise; then x_j = alpha_j data + sigma_j noise.
    alpha, sigma, d_alpha, d_sigma = schedule(times)
    start = tuple(c[:-1, None] for c in (alpha, sigma, d_alpha, d_sigma))
    determinant = start[1] * start[2] - start[3] * start[0]
    a = (start[2] * sigma - start[3] * alpha) / determinant
    b = (start[1] * alpha - start[0] * sigma) / determinant
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError(
            f"rule: 'ddim' converts the velocity to data and noise, which is undefined for {schedule!r} at "
            "some of the candidates; pass rule='euler'."
        )
    return a, b
