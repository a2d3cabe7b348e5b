"""Samples as pixels: conversion, contact sheets, and PNG files."""

from __future__ import annotations

import math
import os
import warnings

import torch
from torch import Tensor

from .._extras import require
from .._files import replacing

__all__ = [
    "is_picture",
    "random_flip",
    "save_pictures",
    "scale",
    "sheet_levels",
    "to_uint8",
    "warn_of_levels",
]

#: The largest value of pictures in [0, 1] is between these, that of pictures in 0 to 255 above the last;
#: between the two are latents, depths in metres, and the like.
_GREY, _WHITE, _LEVELS = 0.5, 1 + 1e-3, 100.0


def scale(x: Tensor) -> Tensor:
    """Map levels 0 to 255 to float32 in [-1, 1], ``x / 127.5 - 1``; floating-point data pass through."""
    return x if x.is_floating_point() else x.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Invert :func:`scale`, rounding to the nearest level and clamping; uint8 passes through."""
    return x if x.dtype == torch.uint8 else ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def warn_of_levels(x: Tensor, name: str) -> None:
    """Warn of floating-point pictures that may be in [0, 1] or 0 to 255, where [-1, 1] is meant.

    What they are meant to be cannot be known: the warning says what values they hold. One bright picture may
    have no value below 0 in [-1, 1] either, several hardly.

    Args:
        x: some pictures, ``(B, C, H, W)``; others pass, and so do bright ones not of one or three channels.
        name: their name in the warning.
    """
    if x.ndim != 4 or not x.is_floating_point() or not x.numel():
        return
    low, high = torch.stack(x.aminmax()).tolist()  # one wait for the device
    bright = low >= 0 and _GREY < high <= _WHITE and len(x) > 1 and is_picture(tuple(x.shape[1:]))
    if not (high > _LEVELS or bright):
        return
    held, levels, mend = f"values up to {high:g}", "0 to 255", "x / 127.5 - 1"
    if bright:
        held, levels, mend = "no value below 0", "[0, 1]", "2 * x - 1"
    warnings.warn(
        f"{name}: pictures of floating point are taken as in [-1, 1], and these hold {held}; if they are in "
        f"{levels}, pass {mend}, or uint8.",
        stacklevel=3,
    )


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


def is_picture(shape: tuple[int, ...] | None) -> bool:
    """Return whether samples of this shape can be shown: ``(1, H, W)`` or ``(3, H, W)``."""
    return shape is not None and len(shape) == 3 and shape[0] in (1, 3)


def sheet_levels(samples: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Return a contact sheet of samples in [-1, 1] as pixels, uint8 of shape ``(H, W)`` or ``(H, W, 3)``.

    Args:
        samples: pictures ``(B, 1 or 3, H, W)``, in reading order; uint8 are pixels already.
        columns: how many stand side by side.
        gap: white pixels between two.
    """
    pixels = to_uint8(samples.detach()).cpu()
    B, C, H, W = pixels.shape
    columns = min(columns, B)
    lines = math.ceil(B / columns)
    sheet = pixels.new_full((C, lines * (H + gap) - gap, columns * (W + gap) - gap), 255)
    for k, picture in enumerate(pixels):
        top, left = (k // columns) * (H + gap), (k % columns) * (W + gap)
        sheet[:, top : top + H, left : left + W] = picture
    return sheet[0] if C == 1 else sheet.permute(1, 2, 0)


def save_pictures(path: str | os.PathLike[str], samples: Tensor, columns: int | None = None) -> None:
    """Write samples in [-1, 1], or pixels in uint8, to one PNG, in reading order, pixel for pixel."""
    columns = columns or math.ceil(math.sqrt(len(samples)))
    levels = sheet_levels(samples, columns)
    levels = levels if levels.ndim == 3 else levels[:, :, None].expand(-1, -1, 3)
    with replacing(path) as temporary:
        require("matplotlib.image", "plot").imsave(temporary, levels.numpy(), format="png")
