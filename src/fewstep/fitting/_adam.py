"""Adam with gradients through the network, as in the papers, for every loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..families import Family
from ..pairs import Pairs
from ._gauss_newton import Iterate
from ._residuals import Residuals
from ._rollout import Rollout
from ._settings import Adam
from .losses import LeastSquares, Loss, PathPairs, Soft, Steps, local_errors

__all__ = ["EndpointObjective", "PathObjective", "SoftObjective", "adam", "objective"]


class Objective(ABC):
    """A loss that Adam minimises."""

    @abstractmethod
    def __call__(self, theta: Tensor, pairs: Pairs, index: Tensor) -> Tensor:
        """Return the loss on some of the pairs, of an index on the CPU, differentiable in theta."""

    def gradient(self, loss: Tensor, theta: Tensor) -> Tensor:
        """Return the gradient in theta of the last loss, without gradients of the network's parameters."""
        return torch.autograd.grad(loss, theta)[0]


class EndpointObjective(Objective):
    """A loss of states, differentiated through the rollout; activations are recomputed, not stored."""

    def __init__(self, rollout: Rollout, family: Family, loss: LeastSquares) -> None:
        self.residuals = Residuals(rollout, family, loss)

    def __call__(self, theta: Tensor, pairs: Pairs, index: Tensor) -> Tensor:
        return self.on(theta, pairs[index])

    def on(self, theta: Tensor, pairs: Pairs) -> Tensor:
        """Return the loss on all pairs, differentiable in theta and in the noises."""
        return self.residuals.loss(self.residuals.squared(theta, pairs, checkpointed=True))


class SoftObjective(Objective):
    """An endpoint loss from the best noise in a ball around each noise: soft teacher forcing.

    Every noise ``x0'`` is updated with theta, by projected gradient descent whenever its pair is in a
    minibatch. Only the direction of the gradient is used: step ``k = 0, 1, ...`` has length
    ``r / sqrt(1 + k)``, so that the first reaches the surface of the ball, where the minimum of a nearly
    linear loss is, and later ones converge to the minimum anywhere in the ball.

    Attributes:
        moves: ``x0' - x0`` of each training pair, like ``x0``.
    """

    def __init__(self, endpoint: EndpointObjective, pairs: Pairs, radius: float) -> None:
        self.endpoint = endpoint
        self.radius = radius
        self.moves = torch.zeros_like(pairs.x0)
        self.visits = torch.zeros(len(pairs), dtype=pairs.x0.dtype, device=pairs.x0.device)

    def __call__(self, theta: Tensor, pairs: Pairs, index: Tensor) -> Tensor:
        some, index = pairs[index], index.to(pairs.x0.device)
        start = (some.x0 + self.moves[index]).requires_grad_()
        self._latest = index, start
        return self.endpoint.on(theta, replace(some, x0=start))

    def gradient(self, loss: Tensor, theta: Tensor) -> Tensor:
        """Return the gradient in theta, and update the noises."""
        index, start = self._latest
        to_theta, to_start = torch.autograd.grad(loss, (theta, start))
        step = self.radius / (1 + self.visits[index]).sqrt().reshape(-1, *[1] * (start.ndim - 1))
        moves = self.moves[index] - step * to_start / _norms(to_start)
        self.moves[index] = moves * (self.radius / _norms(moves)).clamp(max=1)
        self.visits[index] += 1
        return to_theta


class PathObjective(Objective):
    """``sum_i M_i d_i`` over the steps of a one-step solver, on the reference paths of the pairs.

    It is the RMSE bound, or with ``M(theta) = 1``, of shape ``(n,)``, the local error.
    """

    def __init__(self, rollout: Rollout, family: Family, weights: Callable[[Tensor], Tensor]) -> None:
        self.rollout, self.family, self.weights = rollout, family, weights

    def __call__(self, theta: Tensor, pairs: Pairs, index: Tensor) -> Tensor:
        some = pairs[index]
        assert isinstance(some, PathPairs)  # as the loss prepared them
        velocity, table = self.rollout.velocity(some), self.family.table(theta)
        errors = local_errors(velocity, table, self.family.points, some.path)
        return (self.weights(theta) * errors.to(theta)).sum()


def objective(loss: Loss, rollout: Rollout, family: Family, pairs: Pairs) -> Objective:
    """Return Adam's objective for pairs prepared by the loss."""
    if isinstance(loss, LeastSquares):
        return EndpointObjective(rollout, family, loss)
    if isinstance(loss, Soft):
        endpoint = EndpointObjective(rollout, family, loss.loss)
        return SoftObjective(endpoint, pairs, loss.radius_of(family, pairs))
    if isinstance(loss, Steps):
        return PathObjective(rollout, family, loss.weights(family))
    raise TypeError(f"fit: there is no objective for a {type(loss).__name__}.")


def adam(objective: Objective, size: int, pairs: Pairs, settings: Adam, seed: int = 0) -> Iterator[Iterate]:
    """Yield the start, then the current ``size`` parameters with the mean loss since the last yield."""
    theta = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=settings.lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations)
    generator = torch.Generator().manual_seed(seed)
    recent: list[Tensor] = []
    for iteration in range(settings.iterations):
        index = torch.randperm(len(pairs), generator=generator)[: settings.batch]
        loss = objective(theta, pairs, index)
        if iteration == 0:
            yield Iterate(theta.detach().clone(), float(loss.detach()))
        theta.grad = objective.gradient(loss, theta)
        torch.nn.utils.clip_grad_norm_([theta], 1.0)
        optimizer.step()
        decay.step()
        recent.append(loss.detach())
        if (iteration + 1) % settings.report_every == 0 or iteration + 1 == settings.iterations:
            yield Iterate(theta.detach().clone(), float(torch.stack(recent).mean()))
            recent.clear()


def _norms(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, positive, in a shape to divide by."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1).clamp(min=torch.finfo(x.dtype).tiny)
    return norms.reshape(-1, *[1] * (x.ndim - 1))
