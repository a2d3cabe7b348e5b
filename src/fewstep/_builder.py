"""A table built state by state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ._table import Table

__all__ = ["TableBuilder"]


class TableBuilder:
    """Collects the states of a solver in the order in which they are computed.

    Args:
        t0: time of the initial state, a float64 scalar.
    """

    def __init__(self, t0: Tensor) -> None:
        self._times = [t0]
        self._rows: list[tuple[Mapping[int, Tensor], Mapping[int, Tensor]]] = []
        self._noises: dict[int, Tensor] = {}
        self._points = [0]

    @property
    def last(self) -> int:
        """Index of the newest state and of the call made there."""
        return len(self._rows)

    def add(
        self,
        time: Tensor,
        C: Mapping[int, Tensor],
        D: Mapping[int, Tensor],
        *,
        point: bool,
        S: Tensor | None = None,
    ) -> int:
        """Append the state ``sum C[j] x_j + sum D[j] u_j + S xi`` at ``time``; return its index."""
        if S is not None:
            self._noises[self.last] = S
        self._rows.append((C, D))
        self._times.append(time)
        if point:
            self._points.append(self.last)
        return self.last

    def finish(self) -> tuple[Table, tuple[int, ...]]:
        """Return the table whose output is the newest state, and its trajectory points."""
        N = self.last
        C, D = (torch.zeros(N, N, dtype=torch.float64) for _ in range(2))
        for i, (c, d) in enumerate(self._rows):
            for matrix, row in ((C, c), (D, d)):
                for j, coefficient in row.items():
                    matrix[i, j] = coefficient
        table = Table(torch.stack(self._times[:-1]), C, D)
        if self._noises:
            none = torch.zeros((), dtype=torch.float64)
            table = table._replace(S=torch.stack([self._noises.get(i, none) for i in range(N)]))
        return table, tuple(self._points)
