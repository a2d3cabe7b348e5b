"""Conversions between predictions that stay finite where the path is pure noise or pure data.

An exact network predicts combinations of ``d = E[x1 | x_t = x]`` and ``e = E[x0 | x_t = x]``. For predictions
``p = p_d d + p_e e`` and ``q = q_d d + q_e e`` (coefficients in :mod:`fewstep._predictions`),

    x = alpha d + sigma e                                                        (1)
    p = A x + B q,   with A, B ~ 1 / D,   D = alpha q_e - sigma q_d              (2)

D = 0 where q is parallel to x: the data prediction in pure data (sigma = 0), the noise prediction in pure
noise (alpha = 0), a velocity that is a multiple of x. There q adds nothing to (1), which yields one of d and
e; the other has a limit. (Likewise for a velocity q with infinite sigma', where D is infinite.) With p1 the
density of the data, p_t that of x_t, and normalising constants Z,

    p(x0 | x) = N(x0; 0, I) p1((x - sigma x0) / alpha) / Z  ->  N(0, I)     as sigma -> 0, for smooth p1
    e = -sigma grad log p_t(x)  ->  0                                       in pure data       (3)
    p(x1 | x) = p1(x1) N(x; alpha x1, sigma^2 I) / Z  ->  p1(x1)            as alpha -> 0
    d  ->  mean of the data                                                 in pure noise      (4)

(the equality in (3) is Tweedie's formula, Efron 2011). Inserted into p = p_d d + p_e e, with (1):

    p = p_d x / alpha                                       in pure data, p_e finite   (5)
    p = p_e x / sigma + p_d mean                            in pure noise, p_d finite  (6)

(5) is p = p_d q where q is the data prediction. If p is the velocity and sigma' is infinite in pure data
(VP), p_e = sigma' and p_e e = -sigma sigma' grad log p_t(x) has a finite limit that depends on the density:
one prediction does not determine it. There, and in (6) if the mean is unknown, (2) is evaluated a small
margin inside [0, 1].

A trained network's e need not follow (3). From a network that predicts data, e is its error divided by sigma,
without bound, so that (3) is the better estimate. From a *preconditioned* denoiser, D = x - sigma e with e of
the network (made of velocity, noise and v predictions, and EDM's), it is the limit of what the network says
just before: where p_e is not zero, (2) is evaluated inside then, too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ._predictions import conversion, in_data_and_noise
from .schedules import Schedule

__all__ = ["Affine", "finite_conversion"]

#: Margin, in square roots of the precision. (2) divides rounding errors by the margin, and what is predicted
#: there differs from that at the end by the margin times its slope in time; slopes of about ten balance both.
_MARGIN = 0.3


class Affine(NamedTuple):
    """``wanted = A x + B given + offset * mean of the data``, with ``given`` predicted at ``times``."""

    A: Tensor
    B: Tensor
    offset: Tensor
    times: Tensor


class _End(NamedTuple):
    """One end of the path: regular, or with the limit ``A, B, offset`` of (5) or (6), if there is one."""

    regular: bool
    limit: tuple[float, float, float] | None = None


def finite_conversion(
    schedule: Schedule,
    t: Tensor,
    wanted: str,
    given: str,
    dtype: torch.dtype,
    *,
    mean_known: bool,
    preconditioned: bool = False,
) -> Affine:
    """Return ``A, B, offset`` at times ``t`` in [0, 1], ends included, and the times to call the network at.

    Args:
        schedule: the schedule.
        t: times, any shape.
        wanted: the prediction to convert to.
        given: the prediction to convert from.
        dtype: type of the state and of ``given``, which sets the margin.
        mean_known: whether the caller can add ``offset`` times the mean of the data.
        preconditioned: whether ``given`` is the data prediction of a preconditioned denoiser.
    """
    inside, limits = t, []
    for end, (regular, limit) in zip((0.0, 1.0), _ends(schedule, wanted, given, preconditioned), strict=True):
        if regular:
            continue
        margin = _MARGIN * torch.finfo(dtype).eps ** 0.5
        inside = inside.clamp(min=margin) if end == 0 else inside.clamp(max=1 - margin)
        if limit is not None and (mean_known or limit[2] == 0):
            limits.append(((t - end).abs() < margin, limit))
    A, B = conversion(schedule(inside), wanted, given)
    offset = torch.zeros_like(A)
    for here, (a, b, c) in limits:
        A, B, offset = torch.where(here, a, A), torch.where(here, b, B), torch.where(here, c, offset)
        inside = torch.where(here, t, inside)
    return Affine(A, B, offset, inside)


@lru_cache(maxsize=256)
def _ends(schedule: Schedule, wanted: str, given: str, preconditioned: bool) -> tuple[_End, _End]:
    noise, data = (_end(schedule, t, wanted, given, preconditioned) for t in (0.0, 1.0))
    return noise, data


def _end(schedule: Schedule, t: float, wanted: str, given: str, preconditioned: bool) -> _End:
    point = schedule(t)
    if all(bool(part.isfinite()) for part in conversion(point, wanted, given)):
        return _End(regular=True)
    in_data, in_noise = (float(part) for part in in_data_and_noise(point, wanted))
    limit = None
    if point.sigma == 0 and (in_noise == 0 or (abs(in_noise) < float("inf") and not preconditioned)):
        limit = (0.0, in_data, 0.0) if given == "data" else (in_data / float(point.alpha), 0.0, 0.0)
    if point.alpha == 0 and abs(in_data) < float("inf"):
        limit = (in_noise / float(point.sigma), 0.0, in_data)
    return _End(regular=False, limit=limit)
