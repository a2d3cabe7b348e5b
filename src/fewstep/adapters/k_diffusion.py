"""Denoisers as k-diffusion's samplers take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..field import Field
from ._denoiser import denoiser_field

__all__ = ["field"]


def field(
    denoiser: Callable[..., Tensor],
    *,
    sigma_max: float | None = None,
    sigma_min: float | None = None,
    rho: float = 7.0,
    **options: Any,
) -> Field:
    """The field of ``denoiser(x, sigma, **extra_args) -> denoised``, of states ``x = data + sigma noise``.

    k-diffusion's wrappers (``CompVisDenoiser`` and its like) bring networks of any parametrisation into this
    form; hand over the wrapper, not the network inside. Its samplers want ``randn * sigmas[0]`` and levels
    that fall; a solver here wants ``randn``, scales it itself, and time rises. What its samplers are given
    as ``extra_args`` are conditions. The denoiser is told ``sigma`` of shape ``(B,)``, never below
    ``sigma_min``: closer to the data the expected noise is taken for what it is there.

    Args:
        denoiser: the wrapper, or any denoiser.
        sigma_max: level of noise at ``t = 0``; the smaller of 80 and ``denoiser.sigma_max`` by default.
        sigma_min: least level the denoiser is told, positive; the larger of 0.002 and
            ``denoiser.sigma_min`` by default.
        rho: how the levels lie in time, as in Karras et al. (2022), eq. 5.
        **options: of :class:`~fewstep.Field`.

    Raises:
        ValueError: when the levels do not increase from above zero.
    """
    return denoiser_field(denoiser, sigma_max=sigma_max, sigma_min=sigma_min, rho=rho, **options)
