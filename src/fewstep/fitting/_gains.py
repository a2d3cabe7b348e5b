"""What a fit gains for the typical noise, and what it leaves to gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

__all__ = ["least_mse", "left", "median_ratio"]

#: Fewest dimensions per column for which least squares in a single sample say something.
PER_COLUMN = 4


def median_ratio(mse: Tensor, rival: Tensor) -> float:
    """Return the median over pairs of the ratio of two solvers' errors, from mean squares ``(B,)``.

    Half of the noises have a better one, whatever happens to a few that fall to another mode.
    """
    exact = torch.finfo(mse.dtype).tiny
    return float(median((mse.clamp(min=exact) / rival.clamp(min=exact)).sqrt().tolist()))


def left(mse: Tensor, least: Tensor, others: Tensor, dimension: int, columns: int) -> dict[str, float | None]:
    """Return the shares by which :func:`least_mse` lowers the RMSE, as ``left`` and ``by_chance``.

    Both are ``None`` with fewer than four dimensions per column, for exact samples, and where unknown.

    Args:
        mse: mean squares of the errors, ``(B,)``.
        least: the least ones with each sample's own columns.
        others: those with another sample's.
        dimension: numbers in a sample.
        columns: number of columns.
    """
    before, *after = (float(each.sqrt().mean()) for each in (mse, least, others))
    if dimension < PER_COLUMN * columns or not before:
        return {"left": None, "by_chance": None}
    shares = [1 - each / before for each in after]
    own, chance = (share if math.isfinite(share) else None for share in shares)
    return {"left": own, "by_chance": chance}


def least_mse(residuals: Tensor, columns: Sequence[Tensor]) -> Tensor:
    """Return the least mean square of each residual less a combination of its columns, ``(B,)``.

    Args:
        residuals: ``(B, ...)``.
        columns: tensors of that shape, each with a column for every residual.

    Returns:
        float64 on the CPU, where least squares allow for columns that depend on each other; NaN for a sample
        that is not finite.
    """
    found = residuals.new_full((len(residuals),), math.nan, dtype=torch.float64, device="cpu")
    for k, (y, *its) in enumerate(zip(residuals.cpu(), *(x.cpu() for x in columns), strict=True)):
        A, b = torch.stack([x.flatten() for x in its], 1).double(), y.flatten()[:, None].double()
        if A.isfinite().all() and b.isfinite().all():
            found[k] = (b - A @ torch.linalg.lstsq(A, b, driver="gelsd").solution).square().mean()
    return found
