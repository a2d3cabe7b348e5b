"""The base classes of losses and of reweighted least squares, and losses of the endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._names import check_name
from ...families import Family
from ...field import Field
from ...metrics import per_sample_mse
from ...pairs import Pairs

__all__ = ["ENDPOINT_LOSSES", "EndpointLoss", "LeastSquares", "Loss", "endpoint_loss", "pseudo_huber"]

#: Added to mean square errors, so that square root and logarithm are smooth at zero.
FLOOR = 1e-12
#: Song and Dhariwal's constant, applied to an RMSE instead of a norm.
HUBER = 0.00054


class Loss(ABC):
    """The base of all losses."""

    #: Name in reports and solver files.
    name: str

    @property
    @abstractmethod
    def judge(self) -> LeastSquares:
        """The least-squares loss that selects the iterate on the validation pairs."""

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        """Return the pairs with the loss's further targets, and the number of network calls made for them."""
        return pairs, 0


class LeastSquares(Loss):
    """The mean of ``rho(mse)`` over residuals, with ``mse`` the mean square of each and ``rho`` concave.

    The derivative ``slope`` of ``rho`` is the weight of the residuals in Gauss-Newton. A residual is
    ``read(state) - target``. The residuals are the rows of one batch: those of all pairs at the first
    compared point, then those at the second, and so on.
    """

    rho: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    @property
    def judge(self) -> LeastSquares:
        return self

    def __call__(self, mse: Tensor) -> Tensor:
        """Return the loss, given the mean squares of all residuals."""
        return self.rho(mse).mean()

    def points(self, family: Family) -> tuple[int, ...]:
        """Return the indices of the ``K`` compared states."""
        return (family.nfe,)

    def times(self, family: Family, theta: Tensor) -> Tensor:
        """Return the times of the compared states, ``(K,)``, on which targets may depend; differentiable."""
        return theta.new_full((1,), family.end)

    def read(self, states: Tensor) -> Tensor:
        """Return the compared quantity of states ``(B, ...)``."""
        return states

    def tangents(self, states: Tensor, along: Tensor) -> Tensor:
        """Return the derivatives of :meth:`read` along directions ``(G, B, ...)``."""
        return along

    def target(self, times: Tensor, pairs: Pairs) -> Tensor:
        """Return the targets, ``(K B, ...)``; differentiable in the times."""
        return pairs.x1

    def squared(self, states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        """Return the mean square of each residual, float64 of shape ``(K B,)``."""
        return per_sample_mse(self.read(states), self.target(times, pairs))

    def numbers(self, family: Family, pairs: Pairs) -> int:
        """Return how many numbers are compared per pair."""
        with torch.no_grad():
            start = torch.zeros(family.size, dtype=torch.float64)
            return self.target(self.times(family, start), pairs[:1]).numel()


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
    check_name(f"{where}: loss", loss, ENDPOINT_LOSSES, " or an EndpointLoss")
    return ENDPOINT_LOSSES[loss]
