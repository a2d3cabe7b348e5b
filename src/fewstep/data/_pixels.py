"""Conversion between 8-bit images and network inputs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["random_flip", "scale", "to_uint8"]


def scale(x: Tensor) -> Tensor:
    """Map levels 0 to 255 to float32 in [-1, 1], ``x / 127.5 - 1``; floating-point data pass through."""
    return x if x.is_floating_point() else x.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Invert :func:`scale`, rounding to the nearest level and clamping; uint8 passes through."""
    return x if x.dtype == torch.uint8 else ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image horizontally with probability 1/2, as augmentation of training data.

    Args:
        x: images ``(B, C, H, W)``, of any type and on any device.
        generator: source of the ``B`` decisions; may be on another device.

    Raises:
        ValueError: for data that are not images.
    """
    if x.ndim != 4:
        raise ValueError(
            f"random_flip: needs images of shape (B, C, H, W), not {tuple(x.shape)}; turn flips off."
        )
    mirrored = torch.rand(len(x), generator=generator, device=generator.device) < 0.5
    mirrored = mirrored.to(x.device, non_blocking=True)[:, None, None, None]
    return torch.where(mirrored, x.flip(-1), x)
