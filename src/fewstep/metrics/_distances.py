"""Pairwise distances of many vectors, in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._features import to_float64

__all__ = ["nearest", "squared_distances"]


def squared_distances(x: Tensor, y: Tensor, block: int) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the squared distances of all rows of ``x`` to all rows of ``y`` as ``(row, column, (b, c))``.

    They are computed in float64 from inner products, with the mean of ``y`` subtracted to limit cancellation.
    Distances within rounding error of zero are zero.
    """
    centre = to_float64(y.mean(dim=0, dtype=torch.promote_types(y.dtype, torch.float32)))
    tolerance = x.shape[1] * torch.finfo(torch.float64).eps
    for row in range(0, len(x), block):
        a = to_float64(x[row : row + block]) - centre
        for column in range(0, len(y), block):
            b = to_float64(y[column : column + block]) - centre
            norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
            squares = norms - 2 * a @ b.T
            yield row, column, torch.where(squares > tolerance * norms, squares, 0.0)


def nearest(x: Tensor, y: Tensor, k: int, block: int, *, others: bool = False) -> tuple[Tensor, Tensor]:
    """Find the ``k`` nearest rows of ``y`` to each row of ``x``.

    Args:
        x: ``(n, d)``.
        y: ``(m, d)``, ``m >= k``.
        k: number of neighbours.
        block: rows at a time.
        others: ``x`` is ``y``, and a vector is not its own neighbour.

    Returns:
        Their squared distances in increasing order, float64, and their indices; each ``(n, k)``.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for row, column, squares in squared_distances(x, y, block):
        if others and row == column:
            squares.fill_diagonal_(torch.inf)
        index = torch.arange(column, column + squares.shape[1], device=squares.device).expand_as(squares)
        if column:
            best, at = found.pop()
            squares, index = torch.cat([best, squares], 1), torch.cat([at, index], 1)
        best, place = squares.topk(min(k, squares.shape[1]), dim=1, largest=False)
        found.append((best, index.gather(1, place)))
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)
