"""Soft teacher forcing: an endpoint loss from the best noise near the given one."""

from __future__ import annotations

from ...families import Family
from ...field import Field
from ...pairs import Pairs
from ._features import Features
from ._loss import EndpointLoss, LeastSquares, Loss, endpoint_loss

__all__ = ["Soft"]


class Soft(Loss):
    """The mean over pairs of ``min rho(x_N(x0'), x_1)`` over noises with ``|x0' - x0| <= r``.

    Tong et al., *Learning to Discretize Denoising Diffusion ODEs* (LD3, ICLR 2025, arXiv:2405.15506): a
    solver of few calls need not reach the sample from exactly the same noise; an indistinguishable one is
    enough. The norm is the Euclidean one of a whole noise, of length about ``sqrt(d)``. Adam updates the
    noises together with theta and projects each into its ball after every step; Gauss-Newton would need
    derivatives in ``d`` more unknowns per pair. Validation uses the given noises.

    Args:
        loss: an endpoint loss, or :class:`Features`.
        radius: ``r``; by default LD3's ``0.001 d / nfe^2`` in ``d`` dimensions.

    Raises:
        ValueError: for another loss, or a negative radius.
    """

    def __init__(self, loss: str | EndpointLoss | Features = "rmse", radius: float | None = None) -> None:
        if radius is not None and not 0 <= radius < float("inf"):
            raise ValueError(f"Soft: radius must be a norm of at least 0, not {radius!r}.")
        self.loss: LeastSquares = loss if isinstance(loss, Features) else endpoint_loss(loss, "Soft")
        self.radius = radius
        self.name = f"soft({self.loss.name}" + ("" if radius is None else f", radius={radius:g}") + ")"

    @property
    def judge(self) -> LeastSquares:
        return self.loss

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        return self.loss.prepared(pairs, field, rtol=rtol, atol=atol)

    def radius_of(self, family: Family, pairs: Pairs) -> float:
        """Return the radius for solvers of a family."""
        return 0.001 * pairs.x0[0].numel() / family.nfe**2 if self.radius is None else self.radius
