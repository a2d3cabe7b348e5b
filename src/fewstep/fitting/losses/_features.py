"""Losses on features of the samples (perceptual distances)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...field import Field
from ...pairs import Pairs
from .._forward_mode import REFUSALS, derivative
from ._loss import EndpointLoss, LeastSquares, endpoint_loss
from ._pairs import FeaturePairs, carrying

__all__ = ["Features"]

_NO_TANGENTS = (
    "{}: jacobian='jvp' and 'directions' need forward-mode derivatives, which phi {}; use "
    "jacobian='differences', which calls it as a black box."
)


class Features(LeastSquares):
    """An endpoint loss of the residual ``phi(x_N) - phi(x_1)``.

    Gauss-Newton with differences applies ``phi`` to perturbed endpoints and needs no derivative of it; with
    directions and in forward mode it takes a ``torch.func.jvp`` through ``phi``; Adam backpropagates through
    it. The iterate is chosen by the features of the validation pairs, where endpoint losses use the samples;
    the errors in the report are those of the samples.

    Args:
        phi: any function of a batch ``(B, ...)`` that returns a tensor with one row per sample, such as
            layers of a network in evaluation mode, flattened and weighted as in the metric.
        loss: an endpoint loss of the mean square over a sample's features.
        name: name of ``phi`` in reports; its own name by default.

    Attributes:
        calls: number of samples passed to ``phi`` so far. A forward-mode derivative counts as two.
    """

    def __init__(
        self, phi: Callable[[Tensor], Tensor], loss: str | EndpointLoss = "rmse", name: str | None = None
    ) -> None:
        if not callable(phi):
            raise ValueError(f"Features: phi must be a function of a batch of samples, not {phi!r}.")
        self.phi = phi
        self.loss = endpoint_loss(loss, "Features")
        self.rho, self.slope = self.loss.rho, self.loss.slope
        label = name or getattr(phi, "__name__", type(phi).__name__)
        self.name = f"features({label}, {self.loss.name})"
        self.calls = 0
        self._differentiable = False

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        self._differentiable = False  # every fit checks it again
        # A few hundred at a time, as phi may be a large network.
        with torch.no_grad():
            features = torch.cat([self.read(part) for part in pairs.x1.split(256)])
        return carrying(FeaturePairs, pairs, features=features), 0

    def read(self, states: Tensor) -> Tensor:
        self.calls += len(states)
        found = self.phi(states)
        if not isinstance(found, Tensor) or found.ndim < 1 or len(found) != len(states):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"Features: phi must return a tensor with one row a sample, not {shape} for {len(states)} "
                "samples."
            )
        return found

    def tangents(self, states: Tensor, along: Tensor) -> Tensor:
        self.calls += 2 * len(along) * len(states)
        try:
            found = torch.stack([derivative(self.phi, states, dx) for dx in along])
        except REFUSALS as error:
            raise ValueError(_NO_TANGENTS.format(self.name, "does not give")) from error
        if not self._differentiable:
            self._look(states, along, found)
        return found

    def _look(self, states: Tensor, along: Tensor, found: Tensor) -> None:
        """Check the largest derivative against a difference: a map that leaves autograd gives zeros."""
        dx, derivative = max(zip(along, found, strict=True), key=lambda pair: float(pair[0].norm()))
        h = 0.01 * states.norm() / dx.norm().clamp(min=torch.finfo(dx.dtype).tiny)
        expected = (self.read(states + h * dx) - self.read(states - h * dx)) / (2 * h)
        if not float((derivative - expected).norm()) <= 0.5 * float(expected.norm()):
            raise ValueError(
                _NO_TANGENTS.format(self.name, "gives wrongly, for it leaves autograd on the way")
            )
        self._differentiable = bool(expected.any())

    def target(self, times: Tensor, pairs: Pairs) -> Tensor:
        assert isinstance(pairs, FeaturePairs)  # as `prepared` made them
        return pairs.features
