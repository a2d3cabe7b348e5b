"""Compatibility of losses and families, and Adam's objective for each loss."""

from __future__ import annotations

from ..families import Family
from ..pairs import Pairs
from ._arguments import step_weights
from ._rollout import Rollout
from .adam import EndpointObjective, Objective, PathObjective, SoftObjective
from .losses import LeastSquares, Loss, PathPairs, Soft, Steps

__all__ = ["check_loss", "objective"]


def check_loss(loss: Loss, family: Family) -> None:
    """Raise, before any network call, for a loss that does not apply to a family."""
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
