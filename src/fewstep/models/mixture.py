"""Flows with a closed form: exact networks for Gaussian mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._predictions import Prediction, check_prediction
from ..field import Field
from ..schedules import CondOT, Schedule

__all__ = ["GaussianMixture", "random_mixture"]


#: Where sigma' is infinite (VP in pure data), the velocity, which is smooth, is evaluated this much earlier.
_INSIDE = 1e-12


class GaussianMixture(nn.Module):
    """The exact network for data drawn from ``sum_k w_k N(mu_k, s_k^2 I)``.

    With data points as means it is that of their kernel density estimate, of bandwidth ``stds``.

    ``x_t`` is a mixture with means ``alpha mu_k`` and variances ``v_k = alpha^2 s_k^2 + sigma^2``. Given
    the component, the expected noise is ``sigma / v_k (x - alpha mu_k)`` and the expected data
    ``mu_k + alpha s_k^2 / v_k (x - alpha mu_k)``; given ``x``, their averages under the posterior of the
    component. Computed in float64 and returned in the type of ``x``.

    Args:
        means: ``(K, *shape)``.
        stds: one standard deviation, or ``K`` of them, positive.
        weights: ``K`` positive numbers, equal by default.
        schedule: the noise schedule, ``CondOT()`` by default.
        prediction: the kind of prediction that :meth:`forward` returns.

    Shape:
        ``x``: ``(B, *shape)``; ``t``: ``()`` or ``(B,)``; output like ``x``.
    """

    means: Tensor
    variances: Tensor
    log_weights: Tensor

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | Sequence[float] | float,
        weights: Tensor | Sequence[float] | None = None,
        schedule: Schedule | None = None,
        prediction: Prediction = "velocity",
    ) -> None:
        super().__init__()
        check_prediction(prediction)
        K = len(means)
        std = torch.as_tensor(stds, dtype=torch.float64, device=means.device).expand(K)
        if not bool((std > 0).all()):
            raise ValueError(f"GaussianMixture: stds must be positive, not {std.tolist()}.")
        weight = torch.ones(K) if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        weight = weight.to(means.device)
        self.schedule = schedule or CondOT()
        self.prediction: Prediction = prediction
        self.shape = tuple(means.shape[1:])
        self.register_buffer("means", means.double().flatten(1))
        self.register_buffer("variances", std.square().clone())
        self.register_buffer("log_weights", (weight.double() / weight.double().sum()).log())
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.double().expand(len(x))[:, None]
        point = self.schedule(t)
        if self.prediction == "velocity":
            point = self.schedule(torch.where(point.d_sigma.isfinite(), t, t - _INSIDE))
        alpha, sigma, d_alpha, d_sigma = point
        flat = x.double().flatten(1)
        v = alpha**2 * self.variances + sigma**2
        p = self._log_joint(flat, alpha, v).softmax(dim=1)

        noise = (p * sigma / v).sum(1, keepdim=True) * flat - (p * sigma * alpha / v) @ self.means
        shrink = alpha * self.variances / v
        data = (p * (1 - shrink * alpha)) @ self.means + (p * shrink).sum(1, keepdim=True) * flat
        output = {
            "velocity": lambda: d_alpha * data + d_sigma * noise,
            "data": lambda: data,
            "noise": lambda: noise,
            "v": lambda: alpha * noise - sigma * data,
        }[self.prediction]()
        return output.reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor | float = 1.0) -> Tensor:
        """Return the log-density of ``x_t`` in nats, float64 of shape ``(B,)``; of the data by default."""
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        alpha, sigma = self.schedule(t.expand(len(x))[:, None])[:2]
        v = alpha**2 * self.variances + sigma**2
        return self._log_joint(x.double().flatten(1), alpha, v).logsumexp(dim=1)

    def _log_joint(self, flat: Tensor, alpha: Tensor, v: Tensor) -> Tensor:
        """Return ``log w_k + log N(x; alpha mu_k, v_k I)``, ``(B, K)``."""
        square = (
            flat.square().sum(1, keepdim=True)
            - 2 * alpha * flat @ self.means.T
            + alpha**2 * self.means.square().sum(1)
        )
        return self.log_weights - flat.shape[1] / 2 * (2 * math.pi * v).log() - square / (2 * v)

    def field(self, name: str | None = None) -> Field:
        """Return the field of this network."""
        return Field(self, self.schedule, self.prediction, shape=self.shape, clock=(0, 1), name=name)

    def sample_data(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` independent data samples, float64, from a generator of any device."""
        device, shape = generator.device, (count, self.means.shape[1])
        weights = self.log_weights.exp().to(device)
        k = torch.multinomial(weights, count, replacement=True, generator=generator).to(self.means.device)
        eps = torch.randn(shape, dtype=torch.float64, generator=generator, device=device).to(self.means)
        return (self.means[k] + self.variances[k].sqrt()[:, None] * eps).reshape(count, *self.shape)


def random_mixture(
    dimension: int,
    modes: int,
    *,
    std: float = 0.1,
    seed: int = 0,
    schedule: Schedule | None = None,
    prediction: Prediction = "velocity",
) -> GaussianMixture:
    """Return narrow modes at random positions with unequal weights and about unit variance per dimension."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(modes, dimension, dtype=torch.float64, generator=generator)
    weights = 0.5 + torch.rand(modes, dtype=torch.float64, generator=generator)
    return GaussianMixture(means * math.sqrt(1 - std**2), std, weights, schedule, prediction)
