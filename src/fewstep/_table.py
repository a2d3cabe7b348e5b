"""Tables as float64 tensors: the form in which families build them and losses differentiate them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._predictions import conversion
from .schedules import Schedule

__all__ = ["Reduced", "Table", "lower_triangle"]


class Reduced(NamedTuple):
    """The reduced form ``x_i = a_i x_0 + sum_{j<i} b_ij u_j``, with ``u_j = u(x_j, t_j)``.

    Shape:
        ``times``: ``(N,)``; ``a``: ``(N,)``; ``b``: ``(N, N)``, lower triangular. Row ``i - 1``
        makes ``x_i``.
    """

    times: Tensor
    a: Tensor
    b: Tensor


class Table(NamedTuple):
    """``x_i = sum_{j<i} C[i,j] x_j + sum_{j<i} D[i,j] u_j``, with ``u_j = u(x_j, t_j)``.

    Shape:
        ``times``: ``(N,)``; ``C`` and ``D``: ``(N, N)``, lower triangular. Row ``i - 1`` makes ``x_i``.
    """

    times: Tensor
    C: Tensor
    D: Tensor

    def unroll(self) -> Reduced:
        """Eliminate every state but ``x_0``: one forward substitution, differentiable."""
        a, b = [torch.ones_like(self.times[0])], [torch.zeros_like(self.times)]
        for c, d in zip(self.C, self.D, strict=True):
            i = len(a)
            a.append(c[:i] @ torch.stack(a))
            b.append(c[:i] @ torch.stack(b) + d)
        return Reduced(self.times, torch.stack(a[1:]), torch.stack(b[1:]))

    def convert(self, schedule: Schedule, wanted: str, given: str) -> Table:
        """The same solver for a network that predicts ``given`` where this table reads ``wanted``.

        Substitutes ``u_j = A(t_j) x_j + B(t_j) m_j``, so that no division is left to sampling.
        """
        A, B = conversion(schedule(self.times), wanted, given)
        used = (self.D != 0).any(dim=0)  # an unread call must not bring in 0 * infinity
        A, B = torch.where(used, A, 0), torch.where(used, B, 0)
        return Table(self.times, self.C + self.D * A, self.D * B)

    def reschedule(self, source: Schedule, target: Schedule, end: float) -> tuple[Table, float]:
        """A table of velocities under ``source`` as one of data predictions under ``target``, and its end.

        With ``x_j = k_j xbar_j`` at equal signal-to-noise ratios and ``ubar_j = A_j xbar_j + B_j m_j``,

            x_i = sum_j (C_ij + D_ij A_j) k_i / k_j x_j + D_ij B_j k_i m_j .

        Raises:
            ValueError: when ``target`` has no such ratio.
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
        table = Table(times[:-1], (self.C + self.D * A) * k[1:, None] / k[:-1], self.D * B * k[1:, None])
        return table, float(times[-1])

    def finite_calls(self) -> Tensor:
        """Which calls, and the states they are made at, have finite coefficients; ``(N,)``."""
        return self.C.isfinite().all(dim=0) & self.D.isfinite().all(dim=0)

    @classmethod
    def from_reduced(cls, reduced: Reduced) -> Table:
        """A table whose rows read no state but ``x_0``."""
        C = torch.zeros_like(reduced.b)
        C[:, 0] = reduced.a
        return cls(reduced.times, C, reduced.b)


def lower_triangle(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    """The rows of a lower triangular matrix, without the zeros above the diagonal."""
    return tuple(tuple(row[: i + 1]) for i, row in enumerate(matrix.tolist()))
