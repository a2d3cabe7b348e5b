"""Denoisers ``D(x, sigma)`` of states ``x = data + sigma noise``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .._network import in_own_type
from ..field import like
from ._network import Network

__all__ = ["Denoise", "precondition"]


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


def precondition(
    raw: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, sigma_data: float, lowest: float
) -> Tensor:
    """Return ``D = c_skip x + c_out F(c_in x, c_noise)`` (Karras et al. 2022, eq. 7 and table 1, column EDM).

    ``c_noise = log(sigma) / 4`` is limited to ``sigma >= lowest``: it is infinite at ``sigma = 0``, where
    ``D = x``.
    """
    square = sigma**2 + sigma_data**2
    c_skip, c_out, c_in = sigma_data**2 / square, sigma * sigma_data / square.sqrt(), square.rsqrt()
    c_noise = sigma.clamp(min=lowest).log() / 4
    return like(c_skip, x) * x + like(c_out, x) * raw(like(c_in, x) * x, c_noise)
