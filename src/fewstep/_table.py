"""Tables as float64 tensors, which families build and losses differentiate."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ._predictions import conversion
from .schedules import Schedule

__all__ = ["Reduced", "Rows", "Table", "check_numbers", "lower_triangle", "square"]

#: The lower triangle of a matrix, row by row.
Rows = tuple[tuple[float, ...], ...]


class Reduced(NamedTuple):
    """The reduced form ``x_i = a_i x_0 + sum_{j<i} b_ij u_j``, with ``u_j = u(x_j, t_j)``.

    Shape:
        ``times``: ``(N,)``; ``a``: ``(N,)``; ``b``: ``(N, N)``, lower triangular. Row ``i - 1`` makes
        ``x_i``.
    """

    times: Tensor
    a: Tensor
    b: Tensor


class Table(NamedTuple):
    """``x_i = sum_{j<i} C[i,j] x_j + sum_{j<i} D[i,j] u_j + S[i] xi_i``, with ``u_j = u(x_j, t_j)``.

    Shape:
        ``times``: ``(N,)``; ``C`` and ``D``: ``(N, N)``, lower triangular. Row ``i - 1`` makes ``x_i``.
        ``S``: ``(N,)``, or a single zero where no row adds noise, which is so for every solver of an ODE.
    """

    times: Tensor
    C: Tensor
    D: Tensor
    S: Tensor = torch.zeros((), dtype=torch.float64)

    def unroll(self) -> Reduced:
        """Eliminate every state but ``x_0``: one forward substitution, differentiable.

        Raises:
            ValueError: when rows add noise, for which the reduced form has no place.
        """
        if self.S.ndim:
            raise ValueError(
                "unroll: this table adds noise, which the reduced form x_i = a_i x_0 + sum_j b_ij u_j has no "
                "place for; take a solver of the ODE, whose S is empty, as eta=0 makes it."
            )
        a, b = [torch.ones_like(self.times[0])], [torch.zeros_like(self.times)]
        for c, d in zip(self.C, self.D, strict=True):
            i = len(a)
            a.append(c[:i] @ torch.stack(a))
            b.append(c[:i] @ torch.stack(b) + d)
        return Reduced(self.times, torch.stack(a[1:]), torch.stack(b[1:]))

    def convert(self, schedule: Schedule, wanted: str, given: str) -> Table:
        """Return the table of ``given`` predictions that equals this table of ``wanted`` predictions.

        Substitutes ``u_j = A(t_j) x_j + B(t_j) m_j``, so that sampling needs no conversion.
        """
        A, B = conversion(schedule(self.times), wanted, given)
        used = (self.D != 0).any(dim=0)  # leave out unread calls, to avoid 0 * infinity
        A, B = torch.where(used, A, 0), torch.where(used, B, 0)
        return Table(self.times, self.C + self.D * A, self.D * B, self.S)

    def convert_where_finite(self, schedule: Schedule, wanted: str, given: str) -> tuple[Table, list[int]]:
        """Convert as :meth:`convert`, except calls whose coefficients would be infinite.

        Returns:
            The table, and the calls that still read ``wanted`` predictions.
        """
        direct = self.convert(schedule, wanted, given)
        finite = direct.finite_calls()
        C, D = torch.where(finite, direct.C, self.C), torch.where(finite, direct.D, self.D)
        return self._replace(C=C, D=D), (~finite).nonzero().flatten().tolist()

    def reschedule(self, source: Schedule, target: Schedule, end: float) -> tuple[Table, float]:
        """Convert a table of velocities under ``source`` to data predictions under ``target``; also its end.

        With ``x_j = k_j xbar_j`` at equal signal-to-noise ratios and ``ubar_j = A_j xbar_j + B_j m_j``,

            x_i = sum_j (C_ij + D_ij A_j) k_i / k_j x_j + D_ij B_j k_i m_j + S_i k_i xi_i .

        Raises:
            ValueError: when ``target`` does not have such a ratio.
        """
        at = torch.cat([self.times, self.times.new_tensor([end])])
        level = source.log_snr(at)
        times = target.inverse_log_snr(level).clamp(0, 1)
        if not bool(torch.isclose(target.log_snr(times), level, rtol=0, atol=1e-6).all()):
            raise ValueError(
                f"reschedule: {target!r} has not every signal-to-noise ratio at which the table calls the "
                f"network, t = {at.tolist()} of {source!r}; choose a grid within those that it has."
            )
        (alpha, sigma), (alpha_bar, sigma_bar) = target(times)[:2], source(at)[:2]
        k = (alpha + sigma) / (alpha_bar + sigma_bar)
        A, B = conversion(source(self.times), "velocity", "data")
        after, before = k[1:, None], k[:-1]
        S = self.S * k[1:] if self.S.ndim else self.S
        table = Table(times[:-1], (self.C + self.D * A) * after / before, self.D * B * after, S)
        return table, float(times[-1])

    def finite_calls(self) -> Tensor:
        """Return which calls have finite coefficients, as have the states they are made at; bool ``(N,)``."""
        return self.C.isfinite().all(dim=0) & self.D.isfinite().all(dim=0)

    @classmethod
    def from_reduced(cls, reduced: Reduced) -> Table:
        """Return the table of a reduced form, whose rows read no state but ``x_0``."""
        C = torch.zeros_like(reduced.b)
        C[:, 0] = reduced.a
        return cls(reduced.times, C, reduced.b)


def lower_triangle(matrix: Tensor) -> Rows:
    """Return the rows of a lower triangular matrix, without the zeros above the diagonal."""
    return tuple(tuple(row[: i + 1]) for i, row in enumerate(matrix.tolist()))


def square(rows: Rows) -> Tensor:
    """Return the float64 matrix with these rows."""
    return torch.tensor([[*row, *[0.0] * (len(rows) - len(row))] for row in rows], dtype=torch.float64)


def check_numbers(
    times: tuple[float, ...],
    C: Rows,
    D: Rows,
    points: tuple[int, ...],
    end: float,
    S: tuple[float, ...] = (),
) -> None:
    """Raise a ``ValueError`` unless the numbers are a valid table of a :class:`~fewstep.Solver`."""
    N = len(times)
    _check(N > 0, "times: a solver needs at least one call")
    for label, rows in (("C", C), ("D", D)):
        shape = [len(row) for row in rows]
        fits = shape == list(range(1, N + 1))
        _check(fits, f"{label}: {N} calls need rows of 1 to {N} numbers, not {shape}")
        for i, row in enumerate(rows):
            _check(all(map(math.isfinite, row)), f"{label}: row {i} must be finite, not {list(row)}")
    _check(len(S) in (0, N), f"S: {N} calls need {N} numbers, or none, not {len(S)}")
    _check(all(map(math.isfinite, S)), f"S: must be finite, not {list(S)}")
    at = (*times, end)
    _check(all(0 <= t <= 1 for t in at), f"times: must lie in [0, 1], not {list(at)}")
    increase = len(points) > 1 and all(i < j for i, j in pairwise(points))
    _check(
        increase and points[0] == 0 and points[-1] == N,
        f"points: must increase from 0 to {N}, not {list(points)}",
    )
    reached = [at[i] for i in points]
    _check(
        all(s < t for s, t in pairwise(reached)),
        f"times: must increase strictly from point to point, not {reached}",
    )


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(f"Solver: {problem}.")
