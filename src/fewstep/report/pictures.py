"""Samples as images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .._extras import require
from ..data import sheet_levels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["picture_rows"]


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
