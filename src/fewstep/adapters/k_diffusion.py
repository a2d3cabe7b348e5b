"""Fields from k-diffusion's denoisers, and samplers for them."""

from __future__ import annotations

import math
from typing import Any

from ..field import Field
from ..schedules import VE
from ._denoise import HIGHEST, LOWEST, Denoise, check_denoiser
from ._k_diffusion_module import module
from ._k_diffusion_sampler import sampler
from ._network import Network, adapted_field

__all__ = ["field", "module", "sampler"]


def field(
    denoiser: Network,
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
        ValueError: when the levels do not increase from above zero, or the network is no denoiser.
    """
    for network in (denoiser, options.get("guide")):
        if network is not None:
            check_denoiser(network, "field")
    if sigma_min is None:
        sigma_min = max(LOWEST, float(getattr(denoiser, "sigma_min", 0.0)))
    if sigma_max is None:
        sigma_max = min(HIGHEST, float(getattr(denoiser, "sigma_max", math.inf)))
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"field: sigma_min and sigma_max must be positive and increasing, not {sigma_min} and "
            f"{sigma_max}; pass the range of noise levels in training."
        )
    options.setdefault("clock", "sigma")
    return adapted_field(denoiser, Denoise(sigma_min), VE(sigma_max, 0.0, rho), "data", **options)
