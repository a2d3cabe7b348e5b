"""Tables as float64 tensors: the form in which families build them and losses differentiate them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._predictions import conversion
from .schedules import Schedule

__all__ = ["NO_OFFSETS", "Number", "Reduced", "Rows", "Table", "frozen", "lower_triangle"]

#: One number for all channels, or one for each.
Number = float | tuple[float, ...]
Rows = tuple[tuple[Number, ...], ...]

#: No offsets: nothing is added in any row.
NO_OFFSETS = torch.zeros((), dtype=torch.float64)


class Reduced(NamedTuple):
    """The reduced form ``x_i = a_i x_0 + sum_{j<i} b_ij u_j + e_i``, with ``u_j = u(x_j, t_j)``.

    Shape:
        ``times``: ``(N,)``; ``a``: ``(N,)``; ``b``: ``(N, N)``, lower triangular; ``e``: ``(N,)``, or the
        number 0 without offsets. Row ``i - 1`` makes ``x_i``. Where each channel has numbers of its own,
        ``a``, ``b`` and ``e`` have one more dimension, for the channels.
    """

    times: Tensor
    a: Tensor
    b: Tensor
    e: Tensor = NO_OFFSETS

    @property
    def channels(self) -> int | None:
        """How many channels have numbers of their own."""
        return self.a.shape[1] if self.a.ndim > 1 else None

    def over(self, channels: int) -> Reduced:
        """The same numbers for each of some channels, where they are not its own already."""
        if self.channels is not None:
            return self
        a, b, e = (part[..., None].expand(*part.shape, channels) for part in self[1:])
        return Reduced(self.times, a, b, e if self.e.ndim else self.e)


class Table(NamedTuple):
    """``x_i = sum_{j<i} C[i,j] x_j + sum_{j<i} D[i,j] u_j + e_i``, with ``u_j = u(x_j, t_j)``.

    Shape:
        ``times``: ``(N,)``; ``C`` and ``D``: ``(N, N)``, lower triangular; ``e``: ``(N,)``, or the number 0
        without offsets. Row ``i - 1`` makes ``x_i``. Where each channel has numbers of its own, ``C`` and
        ``D`` have one more dimension, for the channels, and ``e`` may have it.
    """

    times: Tensor
    C: Tensor
    D: Tensor
    e: Tensor = NO_OFFSETS

    @property
    def channels(self) -> int | None:
        """How many channels have numbers of their own."""
        own = self.C.shape[2:] or self.e.shape[1:]
        return own[0] if own else None

    def channel(self, k: int) -> Table:
        """The table of one channel."""
        C, D = (part[..., k] if part.ndim > 2 else part for part in (self.C, self.D))
        return Table(self.times, C, D, self.e[:, k] if self.e.ndim > 1 else self.e)

    def simplest(self) -> Table:
        """The same table, without channels that are all alike and without offsets that are all zero."""
        parts = [part for part, lead in ((self.C, 2), (self.D, 2), (self.e, 1)) if part.ndim > lead]
        alike = all(bool((part == part[..., :1]).all()) for part in parts)
        table = self.channel(0) if parts and alike else self
        return table._replace(e=NO_OFFSETS) if table.e.ndim and not table.e.any() else table

    def unroll(self) -> Reduced:
        """Eliminate every state but ``x_0``: one forward substitution, differentiable."""
        if self.channels is not None:
            each = [self.channel(k).unroll() for k in range(self.channels)]
            own = [torch.stack(part, dim=-1) for part in list(zip(*each, strict=True))[1:]]
            return Reduced(self.times, own[0], own[1], own[2] if self.e.ndim else NO_OFFSETS)
        a, b = [torch.ones_like(self.times[0])], [torch.zeros_like(self.times)]
        for c, d in zip(self.C, self.D, strict=True):
            i = len(a)
            a.append(c[:i] @ torch.stack(a))
            b.append(c[:i] @ torch.stack(b) + d)
        return Reduced(self.times, torch.stack(a[1:]), torch.stack(b[1:]), self._shifts())

    def _shifts(self) -> Tensor:
        """What the offsets come to in each state."""
        if not self.e.ndim:
            return self.e
        e = [torch.zeros_like(self.times[0])]
        for c, offset in zip(self.C, self.e, strict=True):
            e.append(c[: len(e)] @ torch.stack(e) + offset)
        return torch.stack(e[1:])

    def convert(self, schedule: Schedule, wanted: str, given: str) -> Table:
        """The same solver for a network that predicts ``given`` where this table reads ``wanted``.

        Substitutes ``u_j = A(t_j) x_j + B(t_j) m_j``, so that no division is left to sampling.
        """
        A, B = (_columns(part, self.D) for part in conversion(schedule(self.times), wanted, given))
        used = (self.D != 0).any(dim=0)  # an unread call must not bring in 0 * infinity
        A, B = torch.where(used, A, 0), torch.where(used, B, 0)
        return self._replace(C=self.C + self.D * A, D=self.D * B)

    def reschedule(self, source: Schedule, target: Schedule, end: float) -> tuple[Table, float]:
        """A table of velocities under ``source`` as one of data predictions under ``target``, and its end.

        With ``x_j = k_j xbar_j`` at equal signal-to-noise ratios and ``ubar_j = A_j xbar_j + B_j m_j``,

            x_i = sum_j (C_ij + D_ij A_j) k_i / k_j x_j + D_ij B_j k_i m_j + k_i e_i .

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
        A, B = (_columns(part, self.D) for part in conversion(source(self.times), "velocity", "data"))
        after, before = _columns(k[1:, None], self.D), _columns(k[:-1], self.D)
        table = Table(
            times[:-1],
            (self.C + self.D * A) * after / before,
            self.D * B * after,
            self.e if not self.e.ndim else self.e * (k[1:] if self.e.ndim == 1 else k[1:, None]),
        )
        return table, float(times[-1])

    def finite_calls(self) -> Tensor:
        """Which calls, and the states they are made at, have finite coefficients; ``(N,)``."""
        finite = self.C.isfinite().all(dim=0) & self.D.isfinite().all(dim=0)
        return finite if finite.ndim == 1 else finite.all(dim=1)

    @classmethod
    def from_reduced(cls, reduced: Reduced) -> Table:
        """A table whose rows read no state but ``x_0``."""
        C = torch.zeros_like(reduced.b)
        C[:, 0] = reduced.a
        return cls(reduced.times, C, reduced.b, reduced.e)


def lower_triangle(matrix: Tensor) -> Rows:
    """The rows of a lower triangular matrix, without the zeros above the diagonal."""
    return tuple(_frozen(row[: i + 1]) for i, row in enumerate(matrix.tolist()))


def frozen(numbers: Tensor) -> tuple[Number, ...]:
    """A vector as a tuple: of numbers, or of tuples with a number a channel."""
    return _frozen(numbers.tolist())


def _frozen(numbers: list[Any]) -> tuple[Number, ...]:
    return tuple(tuple(n) if isinstance(n, list) else n for n in numbers)


def _columns(values: Tensor, matrix: Tensor) -> Tensor:
    """Values for the columns, or rows, of a matrix that may have channels."""
    return values if matrix.ndim == 2 else values[..., None]
