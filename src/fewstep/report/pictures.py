"""Samples as images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .._extras import require
from .._files import replacing
from ..data import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["is_picture", "picture_rows", "save_pictures", "sheet_levels"]


def is_picture(shape: tuple[int, ...] | None) -> bool:
    """True for samples that can be shown as images: ``(1, H, W)`` or ``(3, H, W)``."""
    return shape is not None and len(shape) == 3 and shape[0] in (1, 3)


def sheet_levels(samples: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Return a contact sheet of samples in [-1, 1] as uint8 pixels, ``(H, W)`` or ``(H, W, 3)``.

    Args:
        samples: images ``(B, 1 or 3, H, W)``, in reading order; uint8 are pixels already.
        columns: images per row.
        gap: white pixels between images.
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


def picture_rows(rows: Mapping[str, Tensor], scores: Mapping[str, str] | None = None) -> Figure:
    """Plot one labelled row of samples per solver; column ``k`` has the same noise in every row.

    Args:
        rows: samples in [-1, 1], ``(B, 1 or 3, H, W)``, by name.
        scores: short texts by name, shown below it.
    """
    B = len(next(iter(rows.values())))
    figure: Figure = require("matplotlib.figure", "plot").Figure(
        figsize=(2.2 + 0.8 * B, 0.86 * len(rows)), layout="constrained"
    )
    grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, samples) in zip(grid, rows.items(), strict=True):
        levels = sheet_levels(samples, columns=B).numpy()
        axes.imshow(levels, vmin=0, vmax=255, cmap="gray", interpolation="nearest")
        score = (scores or {}).get(name)
        label = name if score is None else f"{name}\n{score}"
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def save_pictures(path: str | os.PathLike[str], samples: Tensor, columns: int | None = None) -> None:
    """Write samples in [-1, 1], or uint8 pixels, to one PNG in reading order, without scaling."""
    columns = columns or math.ceil(math.sqrt(len(samples)))
    levels = sheet_levels(samples, columns)
    levels = levels if levels.ndim == 3 else levels[:, :, None].expand(-1, -1, 3)
    with replacing(path) as temporary:
        require("matplotlib.image", "plot").imsave(temporary, levels.numpy(), format="png")
