"""Objectives for Adam by kind of loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..families import Family, ScaleTime
from ..pairs import Pairs
from ._adam import EndpointObjective, Objective, PathObjective, SoftObjective
from ._rollout import Rollout
from .losses import LeastSquares, Loss, PathPairs, Soft, Steps, bound_weights, check_one_step

__all__ = ["check_loss", "objective"]


def check_loss(loss: Loss, family: Family) -> None:
    """Raise, before any network call, if a loss does not apply to a family."""
    if isinstance(loss, Steps):
        step_weights(loss.name, family)


def objective(loss: Loss, rollout: Rollout, family: Family, pairs: Pairs) -> Objective:
    """Return Adam's objective for pairs prepared by the loss."""
    if isinstance(loss, LeastSquares):
        return EndpointObjective(rollout, family, loss)
    if isinstance(loss, Soft):
        endpoint = EndpointObjective(rollout, family, loss.loss)
        return SoftObjective(endpoint, pairs, loss.radius_of(family, pairs))
    if isinstance(loss, Steps) and isinstance(pairs, PathPairs):
        return PathObjective(rollout, family, pairs.path, step_weights(loss.name, family))
    raise TypeError(f"fit: there is no objective for a {type(loss).__name__}.")


def step_weights(loss: str, family: Family) -> Callable[[Tensor], Tensor]:
    """Return the weights ``M(theta)`` of the steps in a path loss, if it applies to the family."""
    start = torch.zeros(family.size, dtype=torch.float64)
    if loss == "local":
        check_one_step(family.table(start), family.points)
        return lambda theta: torch.ones(len(family.points) - 1, dtype=theta.dtype)
    if not isinstance(family, ScaleTime):
        raise ValueError(
            "fit: loss='bound' is known for scale-time solvers only; use family='scale_time', or loss='rmse'."
        )
    bound_weights(family, start)  # raises if the bound of the base is unknown
    return partial(bound_weights, family)
