"""Losses of the endpoint's mean square error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ._loss import LeastSquares

__all__ = ["ENDPOINT_LOSSES", "EndpointLoss", "endpoint_loss", "pseudo_huber"]

#: Added to mean square errors, so that square root and logarithm are smooth at zero.
FLOOR = 1e-12
#: Song and Dhariwal's constant, applied to an RMSE instead of a norm.
HUBER = 0.00054


@dataclass(frozen=True)
class EndpointLoss(LeastSquares):
    """The mean over samples of ``rho(mse)``, a concave function of each sample's mean square error.

    Args:
        name: name in reports.
        rho: the function.
        slope: its derivative.
    """

    name: str
    rho: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def pseudo_huber(c: float = HUBER) -> EndpointLoss:
    """Return the loss ``sqrt(mse + c^2) - c``: about the RMSE for errors above ``c``, ``mse / 2c`` below.

    Song and Dhariwal (*Improved Techniques for Training Consistency Models*, ICLR 2024, section 3.3) use
    the norm of the difference in ``d`` dimensions, ``sqrt(|x - y|^2 + C^2) - C``, with
    ``C = 0.00054 sqrt(d)``. As ``|x - y|^2 = d mse``, this is ``sqrt(d)`` times the present loss with
    ``c = C / sqrt(d) = 0.00054`` in every dimension.

    Args:
        c: an RMSE, positive, below which errors count by their square. Choose the error below which a sample
            is as good as exact, such as half a grey level of 8 bits, 0.004 for data in [-1, 1]; if none is
            known, the RMSE of a fit with the RMSE loss. The default is far below the errors of solvers with
            few calls, so that the loss is an RMSE smoothed at zero.

    Raises:
        ValueError: when ``c`` is not positive.
    """
    if not 0 < c < float("inf"):
        raise ValueError(
            f"pseudo_huber: c must be positive, the RMSE where the loss turns linear, not {c!r}."
        )
    name = "pseudo_huber" if c == HUBER else f"pseudo_huber(c={c:g})"
    return EndpointLoss(name, lambda m: (m + c**2).sqrt() - c, lambda m: 0.5 / (m + c**2).sqrt())


#: ``rmse`` is the mean of per-sample RMSE; ``log_mse`` is minus the PSNR up to scale and shift.
ENDPOINT_LOSSES: dict[str, EndpointLoss] = {
    "mse": EndpointLoss("mse", lambda m: m, torch.ones_like),
    "rmse": EndpointLoss("rmse", lambda m: (m + FLOOR).sqrt(), lambda m: 0.5 / (m + FLOOR).sqrt()),
    "log_mse": EndpointLoss("log_mse", lambda m: (m + FLOOR).log(), lambda m: 1 / (m + FLOOR)),
    "pseudo_huber": pseudo_huber(),
}


def endpoint_loss(loss: str | EndpointLoss, where: str) -> EndpointLoss:
    """Return the endpoint loss of this name; ``where`` names the caller in errors."""
    if isinstance(loss, EndpointLoss):
        return loss
    if loss not in ENDPOINT_LOSSES:
        known = ", ".join(ENDPOINT_LOSSES)
        raise ValueError(f"{where}: loss must be one of {known} or an EndpointLoss, not {loss!r}.")
    return ENDPOINT_LOSSES[loss]
