"""The scale of guidance, solved for from a network's outputs and their mix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._diffusers_values import plain, refuse

__all__ = ["mix"]


def mix(
    outputs: Sequence[Sequence[Tensor]], given: Sequence[Tensor], tol: float
) -> tuple[int, float | None, list[int]]:
    """Solve for the weights of the network's outputs in what the scheduler got, to a relative tolerance.

    Returns:
        The sign of their sum, the scale of guidance (``None`` for one output), and the order of the outputs
        with the conditional one first.
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
        each = max(_misfit(a, _solved(a, b), b) for a, b in zip(A, y, strict=True))
        if count == 2 and each <= tol:
            refuse("the scale of guidance changes from step to step; pass a constant one")
        refuse(
            f"no weighted sum of the network's outputs is what the scheduler gets ({misfit:.1%} is left), as "
            "with guidance_rescale or renormalised guidance; switch those off"
        )
    sign = 1 if w[0] > 0 else -1
    if abs(float(w[0]) - sign) > tol:
        refuse(f"the network's outputs are multiplied by {float(w[0]):.4g}, where 1 or -1 is known")
    if count == 1:
        return sign, None, [0]
    # w_mean (a + b) / 2 + w_diff (a - b) = sign (b + g (a - b)), with g = 1/2 + sign w_diff.
    scale = 0.5 + sign * float(w[1])
    order = [0, 1] if scale >= 0.5 else [1, 0]
    return sign, _rounded(scale if scale >= 0.5 else 1 - scale, tol), order


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
