"""A field as the denoiser ``D(x, sigma)`` of EDM and k-diffusion."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._broadcast import as_float64, factor
from ._field import FieldBase
from ._field_module import FieldModule
from ._network import state_type

__all__ = ["Denoiser"]

#: Largest relative step outside the levels of a field that is taken for rounding in float32.
_ROUNDING = 1e-5


class Denoiser(FieldModule):
    """The data expected at ``x = data + sigma noise``; see :meth:`fewstep.Field.denoiser`.

    A state of the field is ``alpha`` times one of these, at the time where ``sigma(t) / alpha(t)`` is the
    noise level. Between :attr:`sigma_min` and :attr:`sigma_max`, the levels of the field's path, every level
    has a time; EDM's loops keep to them, and so does :meth:`round_sigma`.

    Args:
        field: the field.
        labels: the network's name for ``class_labels``.

    Attributes:
        sigma_min: ``sigma(1) / alpha(1)``, mostly 0.
        sigma_max: ``sigma(0) / alpha(0)``, infinite where the path begins in pure noise.
        img_channels: channels of a sample, if the field has a shape ``(C, H, H)``.
        img_resolution: height and width of a sample, if the field has such a shape.
        label_dim: that of the network, 0 if it has none.

    Shape:
        ``x``: ``(B, ...)``; ``sigma``: a number, or a tensor of one, or of one per sample, as ``(B,)`` or
        ``(B, 1, 1, 1)``; output like ``x``, of its type.

    Raises:
        ValueError: when ``sigma`` has another size, or lies outside the levels of the field. Where only the
            device knows it, nothing waits for it: samples at such levels are NaN.
    """

    def __init__(self, field: FieldBase, labels: str = "class_labels") -> None:
        super().__init__(field)
        self.labels = labels
        noise, data = (field.schedule(t) for t in (0.0, 1.0))
        self.sigma_min = float(data.sigma / data.alpha)
        self.sigma_max = float(noise.sigma / noise.alpha) if noise.alpha > 0 else math.inf
        shape = field.shape or ()
        if len(shape) == 3 and shape[1] == shape[2]:
            self.img_channels, self.img_resolution = shape[:2]
        modules = (module for network in field.networks for module in network.modules())
        labelled: Any = next((module for module in modules if hasattr(module, "label_dim")), None)
        self.label_dim = 0 if labelled is None else int(labelled.label_dim)

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Any = None, **conditions: Any
    ) -> Tensor:
        if class_labels is not None:
            conditions[self.labels] = class_labels
        level = self._level(sigma, len(x))
        low, high = self.sigma_min * (1 - _ROUNDING), self.sigma_max * (1 + _ROUNDING)
        inside = (level >= low) & (level <= high) & level.isfinite()
        known = level.device.type == "cpu" and not torch.compiler.is_compiling()
        if known and not inside.all():
            raise ValueError(
                f"denoiser: sigma must be within {self.sigma_min:.4g} and {self.sigma_max:.4g}, the levels "
                f"of this field, not {level[~inside][0]:.4g}; take round_sigma(sigma), or give the sampler "
                "sigma_min and sigma_max of the denoiser."
            )
        t = self.field.schedule.inverse_log_snr(-level.log()).clamp(0, 1)
        time = float(t) if known and t.ndim == 0 else t.to(x.device)
        alpha = factor(self.field.schedule(t).alpha, time, x)
        state = alpha * x.to(state_type(x.dtype))
        denoised = self.field.predict_as("data", state, time, **conditions).to(x.dtype)
        if known:
            return denoised
        return torch.where(inside.to(x.device).reshape(-1, *[1] * (x.ndim - 1)), denoised, math.nan)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """Return the nearest noise levels that the field has."""
        level = sigma if isinstance(sigma, Tensor) else as_float64(sigma)
        return level.clamp(self.sigma_min, self.sigma_max)

    def _level(self, sigma: Tensor | float, count: int) -> Tensor:
        """Return the noise level in float64, one, ``()``, or one for each sample, ``(B,)``."""
        try:
            level = as_float64(sigma)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"denoiser: sigma must be a noise level, a number or a tensor, not {sigma!r}."
            ) from None
        if level.numel() not in (1, count):
            raise ValueError(
                f"denoiser: sigma must be one noise level, or one for each of {count} states, not of shape "
                f"{tuple(level.shape)}."
            )
        return level.reshape(() if level.numel() == 1 else (count,))

    def __getattr__(self, name: str) -> Any:
        if name in ("img_channels", "img_resolution"):
            raise AttributeError(
                f"denoiser: {name} is that of square images, but the field has shape {self.field.shape}; "
                "make it with Field(..., shape=(3, 32, 32))."
            )
        return super().__getattr__(name)
