"""Samples of a comparison: pictures from the same noises, and trajectories in the plane."""

from __future__ import annotations

from collections.abc import Sequence

from ...comparison import Comparison, Kept
from ..page import Pictures, Planes, Section, Strip
from ..pictures import is_picture
from ._rows import by_calls, by_model, failed, label, ranked, short

__all__ = ["pictures", "trajectories"]

#: How many pictures a row has, and how many paths a plane.
_PICTURES, _PATHS = 12, 64


def pictures(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Rows of pictures at every number of calls, where samples are pictures."""
    kept = [(table, table.kept) for table in tables if table.kept]
    shown = {table.model: own for table, own in kept if is_picture(tuple(own.reference.shape[1:]))}
    if not shown:
        return []
    part = by_model(
        [table for table in tables if table.model in shown],
        lambda table: by_calls(table, lambda n: _strips(table, shown[table.model], n), first),
    )
    return [
        Section(
            "The same noises",
            [part],
            "One column is one noise. The first row is the reference, what the model would draw with as many "
            "calls as it takes; the others try to come close with the calls chosen.",
        )
    ]


def _strips(table: Comparison, kept: Kept, nfe: int) -> Pictures:
    metric, calls = table.metrics[0], table.protocol["reference"]["nfe"]
    strips = [Strip("reference", kept.reference[:_PICTURES], f"{calls} calls")]
    strips += [
        Strip(row["solver"], kept.samples[k][:_PICTURES], f"{label(metric)} {short(row[metric])}")
        for k, row in ranked(table, nfe)
        if "failure" not in row
    ]
    return Pictures(f"{table.model}, {nfe} network calls", strips, failed(table, nfe))


def trajectories(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Paths at every number of calls, where samples are points in the plane."""
    kept = [(table, table.kept) for table in tables if table.kept]
    shown = {table.model: own for table, own in kept if own.paths}
    if not shown:
        return []
    part = by_model(
        [table for table in tables if table.model in shown],
        lambda table: by_calls(table, lambda n: _planes(table, shown[table.model], n), first),
    )
    return [Section("Trajectories", [part], "Paths from the same noises to the samples.")]


def _planes(table: Comparison, kept: Kept, nfe: int) -> Planes:
    metric = table.metrics[0]
    paths = {} if kept.reference_path is None else {"reference": kept.reference_path[:, :_PATHS]}
    for k, row in ranked(table, nfe):
        if "failure" not in row:
            paths[f"{row['solver']}, {label(metric)} {short(row[metric])}"] = kept.paths[k][:, :_PATHS]
    return Planes(f"{table.model}, {nfe} network calls", paths, failed(table, nfe))
