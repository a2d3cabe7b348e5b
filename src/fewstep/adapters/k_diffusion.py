"""Fields from k-diffusion's denoisers."""

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
    """Return the field of ``denoiser(x, sigma, **extra_args) -> denoised``, of states ``data + sigma noise``.

    k-diffusion's wrappers (``CompVisDenoiser`` and others) bring networks of any parametrisation into this
    form; pass the wrapper, not the network inside. Its samplers take ``randn * sigmas[0]`` and decreasing
    levels; a solver here takes ``randn`` and scales it, and time increases. The samplers' ``extra_args`` are
    conditions. The denoiser takes ``sigma`` of shape ``(B,)``, at least ``sigma_min``: below that level the
    expected noise is held constant.

    Args:
        denoiser: the wrapper, or any denoiser.
        sigma_max: noise level at ``t = 0``; the smaller of 80 and ``denoiser.sigma_max`` by default.
        sigma_min: lowest level passed to the denoiser, positive; the larger of 0.002 and
            ``denoiser.sigma_min`` by default.
        rho: exponent of the levels in time, as in Karras et al. (2022), eq. 5.
        **options: options of :class:`~fewstep.Field`.

    Raises:
        ValueError: when the levels do not increase from above zero.
    """
    return denoiser_field(denoiser, sigma_max=sigma_max, sigma_min=sigma_min, rho=rho, **options)
