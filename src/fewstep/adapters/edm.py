"""Fields from networks of EDM and EDM2 (Karras et al. 2022, 2024), and samplers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .._broadcast import like
from .._network import in_own_type
from ..field import Field
from . import k_diffusion
from ._denoise import LOWEST
from ._edm_sampler import sampler
from ._network import Network

__all__ = ["Preconditioned", "field", "sampler"]


def field(net: Network, **options: Any) -> Field:
    """Return the field of ``net(x, sigma, class_labels=None) -> D(x)``, a denoiser of ``data + sigma noise``.

    The noise level decreases from ``sigma_max`` at ``t = 0``, with ``sigma(t)`` as in EDM's eq. 5, to zero at
    ``t = 1``. The state has EDM's scale: it starts at ``sigma_max`` times the noise. Labels are a condition,
    ``class_labels=...``. A ``guide``, the weaker network of autoguidance, has the same signature.

    Args:
        net: the denoiser; a raw network ``F`` must be :class:`Preconditioned` first.
        **options: ``sigma_max``, ``sigma_min``, ``rho`` and options of :class:`~fewstep.Field`, as for
            :func:`fewstep.adapters.k_diffusion.field`; ``shape`` defaults to that of ``img_channels`` and
            ``img_resolution``.

    Raises:
        ValueError: when the levels do not increase from above zero.
    """
    channels, size = (getattr(net, name, None) for name in ("img_channels", "img_resolution"))
    if channels is not None and size is not None:
        options.setdefault("shape", (channels, size, size))
    return k_diffusion.field(net, **options)


class Preconditioned(nn.Module):
    """The denoiser of a raw network: ``D = c_skip x + c_out F(c_in x, c_noise)``.

    With ``s = sigma^2 + sigma_data^2``: ``c_skip = sigma_data^2 / s``, ``c_out = sigma sigma_data /
    sqrt(s)``, ``c_in = 1 / sqrt(s)`` and ``c_noise = log(sigma) / 4`` (Karras et al. 2022, eq. 7 and table
    1). At ``sigma = 0`` it returns ``x``.

    Args:
        network: ``F``, called as ``network(x, c_noise, **conditions)``; it is used, not copied.
        sigma_data: standard deviation of the data, 0.5 in EDM.
        sigma_min: level below which ``c_noise`` is constant.

    Shape:
        ``x``: ``(B, ...)``; ``sigma``: ``()`` or ``(B,)``; output like ``x``. ``F`` gets ``c_noise`` shaped
        like ``sigma``.

    Raises:
        ValueError: when ``network`` is not a module, or a level is not positive.
    """

    casts_input = True

    def __init__(self, network: nn.Module, sigma_data: float = 0.5, *, sigma_min: float = LOWEST) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(f"Preconditioned: network must be a module, not a {type(network).__name__}.")
        if not (sigma_data > 0 and sigma_min > 0):
            raise ValueError(
                f"Preconditioned: sigma_data and sigma_min must be positive, not {sigma_data} and "
                f"{sigma_min}."
            )
        self.network = network
        self.sigma_data = sigma_data
        self.sigma_min = sigma_min
        self.training = network.training

    def forward(self, x: Tensor, sigma: Tensor, **conditions: Any) -> Tensor:
        def raw(scaled: Tensor, c_noise: Tensor) -> Tensor:
            return in_own_type(self.network, scaled, c_noise.to, conditions)

        return precondition(raw, x, sigma, self.sigma_data, self.sigma_min)

    def get_extra_state(self) -> dict[str, float]:
        """Return the settings, saved with the weights and so part of the field's fingerprint."""
        return {"sigma_data": self.sigma_data, "sigma_min": self.sigma_min}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.sigma_data, self.sigma_min = state["sigma_data"], state["sigma_min"]


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
