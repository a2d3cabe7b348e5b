"""Denoisers below the lowest noise level that their networks were trained at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .._broadcast import like
from .._network import in_own_type
from ..field import Field
from ._network import Network

__all__ = ["HIGHEST", "LOWEST", "Denoise", "check_denoiser"]

#: The noise levels that EDM samples between (Karras et al. 2022, table 1); a network may have others.
LOWEST, HIGHEST = 0.002, 80.0


def check_denoiser(network: object, function: str) -> None:
    """Raise a ``ValueError`` for a field, which is called with a time, not with a noise level."""
    if isinstance(network, Field) or not callable(network):
        remedy = "pass field.denoiser()" if isinstance(network, Field) else "pass net(x, sigma) -> denoised"
        raise ValueError(
            f"{function}: the network must be a denoiser, not a {type(network).__name__}; {remedy}."
        )


@dataclass(frozen=True)
class Denoise:
    """``D(x, sigma)`` of a network that is not called at levels below ``lowest``, where it was not trained.

    There ``x - D`` is proportional to ``sigma``, so that the expected noise is constant. With a constant
    ``D`` instead, the velocity ``sigma' (x - D) / sigma`` would keep moving the state towards the mode.
    """

    lowest: float
    casts_input: ClassVar[bool] = True

    def __call__(self, network: Network, x: Tensor, sigma: Tensor, **conditions: Any) -> Tensor:
        told = sigma.clamp(min=self.lowest)
        share = like(sigma / told, x)
        denoised: Tensor = (1 - share) * x + share * in_own_type(network, x, told.to, conditions)
        return denoised
