"""Distillation losses ``loss(x, x1) -> scalar`` between the student's and the teacher's samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._hashing import fingerprint

__all__ = ["LOSSES", "Loss", "feature_mse", "mse", "pseudo_huber"]

#: Maps samples and targets, both ``(B, ...)``, to a differentiable scalar.
Loss = Callable[[Tensor, Tensor], Tensor]

#: Song and Dhariwal's constant, for data in [-1, 1].
_HUBER = 0.00054


def mse(x: Tensor, x1: Tensor) -> Tensor:
    """Mean over samples and dimensions of the squared difference."""
    return (x - x1).square().mean()


def pseudo_huber(x: Tensor, x1: Tensor) -> Tensor:
    """Mean over samples of ``sqrt(|x - x1|^2 + c^2) - c``, with ``c = 0.00054 sqrt(d)`` in ``d`` dimensions.

    The norm of the difference, smoothed near zero (the Charbonnier loss): outliers count less than under
    :func:`mse`. Song and Dhariwal, *Improved Techniques for Training Consistency Models*
    (ICLR 2024, arXiv 2310.14189), Section 3.3.
    """
    difference = (x - x1).flatten(1)
    c = _HUBER * math.sqrt(difference.shape[1])
    return ((difference.square().sum(dim=1) + c**2).sqrt() - c).mean()


def feature_mse(features: nn.Module) -> Loss:
    """Return the mean squared difference between features of samples and targets as a loss.

    Args:
        features: ``features(x) -> Tensor``, for instance the first layers of a classifier. A frozen copy
            in evaluation mode is used, which is not part of the student, its averages or its checkpoints.
    """
    network = copy.deepcopy(features).eval().requires_grad_(False)

    def loss(x: Tensor, x1: Tensor) -> Tensor:
        network.to(x.device)
        with torch.no_grad():
            wanted = network(x1)
        return mse(network(x), wanted)

    # A resumed run must have a loss of the same name.
    loss.__name__ = f"feature_mse of {type(features).__name__} {fingerprint(features.state_dict())}"
    return loss


#: The losses without parameters, by name.
LOSSES: dict[str, Loss] = {"mse": mse, "pseudo_huber": pseudo_huber}
