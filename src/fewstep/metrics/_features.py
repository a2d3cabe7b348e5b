"""Validation of features, their conversion to float64, and distances of many, in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["check_alike", "check_features", "nearest", "squared_distances", "to_float64"]

#: Vectors checked at a time.
_ROWS = 4096


def check_features(caller: str, **named: Tensor) -> None:
    """Raise a ``ValueError`` naming an argument that is not floating-point ``(n, d)`` with ``d > 0``."""
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{caller}: {name} must be a tensor of shape (n, d), not a {type(x).__name__}.")
        if x.ndim != 2 or not x.is_floating_point() or x.shape[1] == 0:
            raise ValueError(
                f"{caller}: {name} must be floating-point feature vectors of shape (n, d), "
                f"not {x.dtype} of shape {tuple(x.shape)}; pass images through a feature network first."
            )


def check_alike(caller: str, **named: Tensor) -> None:
    """Raise a ``ValueError`` unless all sets are finite features of the same length on one device."""
    check_features(caller, **named)
    kinds = {name: (x.shape[1], str(x.device)) for name, x in named.items()}
    if len(set(kinds.values())) > 1:
        given = ", ".join(f"{name} has {d} on {device}" for name, (d, device) in kinds.items())
        raise ValueError(f"{caller}: features must have the same length and device, but {given}.")
    for name, x in named.items():
        if not all(torch.isfinite(part).all() for part in x.split(_ROWS)):
            raise ValueError(f"{caller}: {name} holds NaN or infinity; check these features.")


def to_float64(x: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device (Apple's GPUs) has no float64."""
    return (x.cpu() if x.is_mps else x).detach().double()


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
    """Return squared distances and indices, ``(n, k)``, of the ``k`` nearest rows of ``y`` to each of ``x``.

    With ``others``, ``x`` is ``y``, and a vector is not its own neighbour.
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
