"""Samples of a comparison: images from the same noises, and trajectories in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...data import is_picture
from ...metrics import figure
from ..page import Pictures, Planes, Section, Strip
from ._rows import failed, of_kept, ranked, short

if TYPE_CHECKING:
    from ...comparison import Comparison, Kept

__all__ = ["pictures", "trajectories"]

#: Images per row, and paths per plane.
_PICTURES, _PATHS = 12, 64


def pictures(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Return rows of images for every number of calls, if samples are images."""
    parts = of_kept(tables, lambda kept: is_picture(tuple(kept.reference.shape[1:])), _strips, first)
    intro = (
        "One column is one noise. The first row is the reference, the nearly exact solution; the others "
        "approximate it with the chosen number of calls."
    )
    return [Section("The same noises", parts, intro)] if parts else []


def _strips(table: Comparison, kept: Kept, nfe: int) -> Pictures:
    metric, calls = table.metrics[0], table.protocol["reference"]["nfe"]
    strips = [Strip("reference", kept.reference[:_PICTURES], f"{calls} calls")]
    strips += [
        Strip(row["solver"], kept.samples[k][:_PICTURES], f"{figure(metric).label} {short(row[metric])}")
        for k, row in ranked(table, nfe)
        if "failure" not in row
    ]
    return Pictures(f"{table.model}, {nfe} network calls", strips, failed(table, nfe))


def trajectories(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Return paths for every number of calls, if samples are points in the plane."""
    parts = of_kept(tables, lambda kept: bool(kept.paths), _planes, first)
    intro = "Paths from the same noises to the samples."
    return [Section("Trajectories", parts, intro)] if parts else []


def _planes(table: Comparison, kept: Kept, nfe: int) -> Planes:
    metric = table.metrics[0]
    paths = {} if kept.reference_path is None else {"reference": kept.reference_path[:, :_PATHS]}
    for k, row in ranked(table, nfe):
        if "failure" not in row:
            paths[f"{row['solver']}, {figure(metric).label} {short(row[metric])}"] = kept.paths[k][:, :_PATHS]
    return Planes(f"{table.model}, {nfe} network calls", paths, failed(table, nfe))
