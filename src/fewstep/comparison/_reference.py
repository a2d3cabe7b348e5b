"""Curvature of the reference's paths, and quality of its samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import reference
from ..field import Field
from ..metrics import CurvatureMeter
from ..pairs import Pairs
from ._measure import Quality

__all__ = ["OfReference", "measure_reference"]

#: Numbers of noises and of steps for the curvature of the model.
_CURVES, _STEPS = 64, 32

#: Most numbers of states held at once: a quarter of a gibibyte in float32.
_NUMBERS = 2**26


class OfReference(NamedTuple):
    """Measurements of the reference.

    Shape:
        ``curvature`` and ``displacement`` of each of the first paths: ``(B,)``; ``path``, if samples are
        points in the plane: ``(P, K, 2)``.
    """

    curvature: Tensor
    displacement: Tensor
    figures: dict[str, float]
    path: Tensor | None

    def describe(self) -> dict[str, Any]:
        """Return the model's curvature, per dimension and relative to the displacement (a ratio of means)."""
        curvature, displacement = float(self.curvature.mean()), float(self.displacement.mean())
        return {
            "per_dimension": curvature,
            "relative": curvature / displacement if displacement else None,
            "samples": len(self.curvature),
            "steps": _STEPS,
        }


def measure_reference(
    field: Field, pairs: Pairs, *, rtol: float, atol: float, batch: int, keep: int, quality: Quality | None
) -> OfReference:
    """Solve the first noises again, at equally spaced times, and measure the quality of all samples.

    Args:
        field: the model.
        pairs: noises and their reference.
        rtol: relative tolerance.
        atol: absolute tolerance.
        batch: samples per batch.
        keep: number of paths to keep, if samples are points in the plane.
        quality: metrics of all samples together.
    """
    times = [i / _STEPS for i in range(_STEPS + 1)]
    count = min(len(pairs), _CURVES)
    size = max(1, min(batch, _NUMBERS // (len(times) * pairs.x0[0].numel())))
    curvature, displacement, paths = [], [], []
    field = pairs.bind(field)
    for first in range(0, count, size):
        part = slice(first, min(first + size, count))
        own = field.rows(part)
        states = reference.solve(own, pairs.x0[part], times=times, rtol=rtol, atol=atol).states
        meter = CurvatureMeter.along(states, times)
        curvature.append(meter.curvature().cpu())
        displacement.append(meter.displacement().cpu())
        if pairs.x0.shape[1:] == (2,):
            paths.append(states.cpu())
    meters = None if quality is None else quality.meter()
    if meters is not None:
        for x1 in pairs.x1.split(batch):
            meters.update(x1)
    return OfReference(
        torch.cat(curvature),
        torch.cat(displacement),
        {} if meters is None else meters.figures(),
        torch.cat(paths, dim=1)[:, :keep] if paths and keep else None,
    )
