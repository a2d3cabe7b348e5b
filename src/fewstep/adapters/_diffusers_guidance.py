"""The scale of guidance, solved for from a network's outputs and their mix.

Pipelines mix two predictions ``a`` and ``b`` as ``c = b + g (a - b)``. Some then change the size of ``c``;
see ``guidance_rescale`` of :class:`fewstep.Field`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._guidance import mixed
from ._diffusers_values import plain, refuse

__all__ = ["Guidance", "mix"]

#: Scales of guidance that are tried where no weighted sum explains the mix, and how closely one is found.
_SCALES: list[float] = torch.logspace(0.01, 2, 60, dtype=torch.float64).tolist()
_CLOSE = 1e-9


class Guidance(NamedTuple):
    """The scale of guidance, ``None`` for none, and ``guidance_rescale`` of a field."""

    scale: float | None = None
    rescale: float | Literal["norm"] = 0.0


def mix(
    outputs: Sequence[Sequence[Tensor]], given: Sequence[Tensor], tol: float
) -> tuple[int, list[int], Guidance]:
    """Solve for the mix of the network's outputs that the scheduler got, to a relative tolerance.

    Args:
        outputs: one or two for each step, like the samples.
        given: what the scheduler got at each step.
        tol: relative tolerance.

    Returns:
        The sign, the order of the outputs with the conditional one first, and guidance.
    """
    count = len(outputs[0])
    A = [torch.stack([block.flatten() for block in blocks], 1) for blocks in outputs]
    y = [plain(value).flatten() for value in given]
    if count > 2:
        refuse(f"its steps mix {count} predictions; a field guides from one to another")
    if float(torch.cat(A).norm()) == 0:
        refuse("the network returned zeros, so that the sign of its output cannot be told")
    if count == 2 and all(float((a[:, 0] - a[:, 1]).norm()) < 1e-5 * float(a.norm()) for a in A):
        refuse(
            "both predictions of guidance are the same, so that its scale cannot be solved for; pass a "
            "prompt that differs from the negative one"
        )
    # Columns of the mean and the difference are better conditioned than two similar outputs.
    A = [a if count == 1 else torch.stack([a.mean(1), a[:, 0] - a[:, 1]], 1) for a in A]
    w = _solved(torch.cat(A), torch.cat(y))
    misfit = max(_misfit(a, w, b) for a, b in zip(A, y, strict=True))
    if not misfit <= tol:
        # First, as a resized mix of one sample looks like guidance that changes from step to step.
        if count == 2 and (resized := _resized(outputs, given, tol)) is not None:
            return resized
        each = max(_misfit(a, _solved(a, b), b) for a, b in zip(A, y, strict=True))
        if count == 2 and each <= tol:
            refuse("the scale of guidance changes from step to step; pass a constant one")
        refuse(
            f"no weighted sum of the network's outputs is what the scheduler gets ({misfit:.1%} is left), "
            "nor their mix by guidance_rescale or with the norm of the conditional output; switch off what "
            "changes the outputs"
        )
    sign = 1 if w[0] > 0 else -1
    if abs(float(w[0]) - sign) > tol:
        refuse(f"the network's outputs are multiplied by {float(w[0]):.4g}, where 1 or -1 is known")
    if count == 1:
        return sign, [0], Guidance()
    # w_mean (a + b) / 2 + w_diff (a - b) = sign (b + g (a - b)), with g = 1/2 + sign w_diff.
    scale = 0.5 + sign * float(w[1])
    order = [0, 1] if scale >= 0.5 else [1, 0]
    return sign, order, Guidance(_rounded(scale if scale >= 0.5 else 1 - scale, tol))


def _resized(
    outputs: Sequence[Sequence[Tensor]], given: Sequence[Tensor], tol: float
) -> tuple[int, list[int], Guidance] | None:
    """Solve for a mix whose size is changed, ``None`` if that does not explain it either."""
    halves = [torch.cat([blocks[k] for blocks in outputs]) for k in (0, 1)]
    y = torch.cat([plain(value) for value in given]).reshape(halves[0].shape)
    sign = 1 if float(((halves[0] + halves[1]) * y).sum()) > 0 else -1
    for order in ([0, 1], [1, 0]):
        for norm in (False, True):
            resizing = _Resizing(halves[order[0]], halves[order[1]], sign * y, norm)
            scale = _least(resizing.misfit)
            if resizing.misfit(scale) <= tol:
                found = resizing.rescale(scale)
                rescale = found if found == "norm" else _rounded(found, tol)
                return sign, order, Guidance(_rounded(scale, tol), rescale)
    return None


class _Resizing(NamedTuple):
    """How well guidance from ``b`` to ``a`` explains ``y``, if it has the norm of ``a`` or is rescaled."""

    a: Tensor
    b: Tensor
    y: Tensor
    norm: bool

    def misfit(self, scale: float) -> float:
        found = mixed(self.a, self.b, scale, self.rescale(scale))
        return float((found - self.y).norm() / self.y.norm())

    def rescale(self, scale: float) -> float | Literal["norm"]:
        """Return the best ``guidance_rescale`` for a scale, by least squares: the mix is linear in it."""
        if self.norm:
            return "norm"
        c = mixed(self.a, self.b, scale, 0.0)
        along = mixed(self.a, self.b, scale, 1.0) - c
        r = float(((self.y - c) * along).sum() / along.square().sum().clamp(min=1e-30))
        return min(max(r, 0.0), 1.0)


def _least(function: Callable[[float], float]) -> float:
    """Return where a function is least among the scales, refined by golden section."""
    k = min(range(len(_SCALES)), key=lambda k: function(_SCALES[k]))
    low, high = _SCALES[max(k - 1, 0)], _SCALES[min(k + 1, len(_SCALES) - 1)]
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > _CLOSE * high:
        # The point that stays inside is one of the next two, so that only the other is evaluated.
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _misfit(A: Tensor, w: Tensor, y: Tensor) -> float:
    return float((A @ w - y).norm() / y.norm().clamp(min=1e-30))


def _solved(A: Tensor, y: Tensor) -> Tensor:
    size = A.norm(dim=0)
    solution: Tensor = torch.linalg.lstsq(A / size, y[:, None]).solution[:, 0] / size
    return solution


def _rounded(value: float, tol: float) -> float:
    """Return the number with the fewest digits that is as good."""
    return next(
        (round(value, k) for k in range(1, 7) if abs(round(value, k) - value) < tol * max(1, abs(value))),
        value,
    )
