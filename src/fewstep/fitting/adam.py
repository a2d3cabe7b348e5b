"""Adam, as in the papers: gradients through the network, endpoint or path losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..families import Family
from ..metrics import per_sample_mse
from ..pairs import Pairs
from ._dense import DensePath
from ._rollout import Rollout
from .gauss_newton import Iterate
from .losses import EndpointLoss, check_one_step, local_errors

__all__ = ["Adam", "EndpointObjective", "PathObjective"]


class EndpointObjective:
    """An endpoint loss through the whole rollout; activations are recomputed, not kept.

    Args:
        rollout: the field.
        family: the solvers.
        loss: the endpoint loss.
    """

    def __init__(self, rollout: Rollout, family: Family, loss: EndpointLoss) -> None:
        self.rollout = rollout
        self.family = family
        self.loss = loss

    def __call__(self, theta: Tensor, pairs: Pairs, index: Tensor) -> Tensor:
        """The loss on some of the pairs, differentiable in theta."""
        batch = pairs[index]
        table = self.family.table(theta).unroll()
        end = self.rollout.endpoint(table, batch, checkpointed=True)
        return self.loss(per_sample_mse(end, batch.x1))


class PathObjective:
    """``sum_i M_i d_i`` over the steps of a one-step solver: the RMSE bound, or with M = 1 the local error.

    Args:
        rollout: the field.
        family: one-step solvers.
        path: the reference paths of the pairs.
        weights: ``M(theta)``, of shape ``(n,)``.
    """

    def __init__(
        self, rollout: Rollout, family: Family, path: DensePath, weights: Callable[[Tensor], Tensor]
    ) -> None:
        check_one_step(family.table(torch.zeros(family.size, dtype=torch.float64)), family.points)
        self.rollout = rollout
        self.family = family
        self.path = path
        self.weights = weights

    def __call__(self, theta: Tensor, pairs: Pairs, index: Tensor) -> Tensor:
        """The loss on some of the pairs, differentiable in theta."""
        velocity = self.rollout.velocity(pairs[index])
        table = self.family.table(theta)
        errors = local_errors(velocity, table, self.family.points, self.path.take(index))
        return (self.weights(theta) * errors.to(theta)).sum()


class Adam:
    """Adam (Kingma and Ba 2015) on random minibatches, with a cosine decay of the learning rate.

    Args:
        objective: the loss of some pairs, differentiable in theta.
        size: number of parameters.
        pairs: what to fit.
        lr: initial learning rate.
        batch: pairs an iteration.
        seed: seed of the minibatches.
        report_every: iterations between two yields.
    """

    def __init__(
        self,
        objective: Callable[[Tensor, Pairs, Tensor], Tensor],
        size: int,
        pairs: Pairs,
        *,
        lr: float = 0.05,
        batch: int = 32,
        seed: int = 0,
        report_every: int = 10,
    ) -> None:
        self.objective = objective
        self.size = size
        self.pairs = pairs
        self.lr = lr
        self.batch = min(batch, len(pairs))
        self.seed = seed
        self.report_every = report_every

    def __call__(self, iterations: int) -> Iterator[Iterate]:
        """Yield the start, and then the newest parameters with the mean loss since the last yield."""
        theta = torch.zeros(self.size, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([theta], lr=self.lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
        generator = torch.Generator().manual_seed(self.seed)
        recent: list[Tensor] = []
        for iteration in range(iterations):
            index = torch.randperm(len(self.pairs), generator=generator)[: self.batch]
            loss = self.objective(theta, self.pairs, index.to(self.pairs.x0.device))
            if iteration == 0:
                yield Iterate(theta.detach().clone(), float(loss.detach()))
            (theta.grad,) = torch.autograd.grad(loss, theta)  # and none for the network's own parameters
            torch.nn.utils.clip_grad_norm_([theta], 1.0)
            optimizer.step()
            decay.step()
            recent.append(loss.detach())
            if (iteration + 1) % self.report_every == 0 or iteration + 1 == iterations:
                yield Iterate(theta.detach().clone(), float(torch.stack(recent).mean()))
                recent.clear()
