"""Conversions that stay finite where the path is pure noise or pure data.

In pure data (sigma = 0) a prediction of the data repeats ``x``, and in pure noise (alpha = 0) a prediction of
the noise does: the other half must come from elsewhere. It has a limit, which every exact network shares:

    expected noise -> 0                   in pure data   (x0 is independent of a smooth density's x1),
    expected data  -> mean of the data    in pure noise.

Where sigma' is infinite as well (VP in pure data) the limit depends on the density and cannot be told from a
single prediction; there, and where the mean is not known, the conversion is taken a little inside.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ._predictions import conversion, in_data_and_noise
from .schedules import Schedule

__all__ = ["Affine", "finite_conversion"]

#: How far inside, for float32 and coarser states: what a trained network says nearer to the end is noise.
_MARGIN = 1e-5
#: For float64, where rounding is divided by the distance: the square root of its precision. Where it is not,
#: the distance itself is the only error.
_ILL_CONDITIONED, _WELL_CONDITIONED = 1e-8, 1e-12


class Affine(NamedTuple):
    """``wanted = A x + B given + offset * mean of the data``, for what is given at ``times``."""

    A: Tensor
    B: Tensor
    offset: Tensor
    times: Tensor


class _End(NamedTuple):
    """What happens at one end: nothing special, a limit, or neither."""

    regular: bool
    limit: tuple[float, float, float] | None = None


def finite_conversion(
    schedule: Schedule, t: Tensor, wanted: str, given: str, dtype: torch.dtype, *, mean_known: bool
) -> Affine:
    """``A, B, offset`` at times ``t`` in [0, 1], both ends included, and the times to ask the network at.

    Args:
        schedule: the schedule.
        t: times, any shape.
        wanted: the prediction to make.
        given: the prediction to make it from.
        dtype: of the state, which decides how far inside is a little.
        mean_known: whether the caller can add ``offset`` times the mean of the data.
    """
    inside, limits = t, []
    for end, (regular, limit) in zip((0.0, 1.0), _ends(schedule, wanted, given), strict=True):
        if regular:
            continue
        margin = _margin(dtype, ill=given == ("noise" if end == 0 else "data"))
        inside = inside.clamp(min=margin) if end == 0 else inside.clamp(max=1 - margin)
        if limit is not None and (mean_known or limit[2] == 0):
            limits.append(((t - end).abs() < margin, limit))
    A, B = conversion(schedule(inside), wanted, given)
    offset = torch.zeros_like(A)
    for here, (a, b, c) in limits:
        A, B, offset = torch.where(here, a, A), torch.where(here, b, B), torch.where(here, c, offset)
        inside = torch.where(here, t, inside)
    return Affine(A, B, offset, inside)


def _margin(dtype: torch.dtype, ill: bool) -> float:
    if dtype != torch.float64:
        return _MARGIN
    return _ILL_CONDITIONED if ill else _WELL_CONDITIONED


@lru_cache(maxsize=256)
def _ends(schedule: Schedule, wanted: str, given: str) -> tuple[_End, _End]:
    return _end(schedule, 0.0, wanted, given), _end(schedule, 1.0, wanted, given)


def _end(schedule: Schedule, t: float, wanted: str, given: str) -> _End:
    point = schedule(t)
    if all(bool(part.isfinite()) for part in conversion(point, wanted, given)):
        return _End(regular=True)
    in_data, in_noise = (float(part) for part in in_data_and_noise(point, wanted))
    limit = None
    if point.sigma == 0 and abs(in_noise) < float("inf"):
        limit = (0.0, in_data, 0.0) if given == "data" else (in_data / float(point.alpha), 0.0, 0.0)
    if point.alpha == 0 and abs(in_data) < float("inf"):
        limit = (in_noise / float(point.sigma), 0.0, in_data)
    return _End(regular=False, limit=limit)
