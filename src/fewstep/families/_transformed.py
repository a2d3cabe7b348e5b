"""The scale-time transform of a whole table: any solver on a path that is scaled, shifted and re-timed."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._table import Table

__all__ = ["ScaleTimeNodes", "ShiftNodes", "transformed"]


class ScaleTimeNodes(NamedTuple):
    """The functions of a scale-time transform at its nodes, all float64 of shape ``(K,)``.

    ``t``: times; ``dt``: their derivatives in r; ``s``: scales; ``ds``: their derivatives in r. No network
    call is made at the last node, whose slopes are unused there. ``s`` and ``ds`` are ``(K, channels)`` where
    each channel has a scale of its own.
    """

    t: Tensor
    dt: Tensor
    s: Tensor
    ds: Tensor

    def at(self, index: list[int]) -> ScaleTimeNodes:
        """The functions at some of the nodes."""
        return ScaleTimeNodes(*(value[index] for value in self))


class ShiftNodes(NamedTuple):
    """An offset ``b`` of the path and its derivatives in r at the nodes, ``(K,)`` or ``(K, channels)``."""

    b: Tensor
    db: Tensor

    def at(self, index: list[int]) -> ShiftNodes:
        """The functions at some of the nodes."""
        return ShiftNodes(*(value[index] for value in self))


def transformed(base: Table, nodes: ScaleTimeNodes, shift: ShiftNodes | None = None) -> Table:
    """The table of velocities that makes the steps of ``base`` on ``xbar(r) = s(r) x(t(r)) + b(r)``.

    ``base`` reads states ``xbar_j = s_j x_j + b_j`` and velocities
    ``ubar_j = s'_j x_j + t'_j s_j u_j + b'_j`` (Shaul et al., *Bespoke Solvers for Generative Flow Models*,
    ICLR 2024, section 2, where ``b = 0``), so that with its ``C`` and ``D``

        x_i = sum_j (C_ij s_j + D_ij s'_j) / s_i x_j + D_ij t'_j s_j / s_i u_j + e_i,
        e_i = [sum_j (C_ij b_j + D_ij b'_j) - b_i] / s_i .

    Args:
        base: a table of ``N`` velocities of the transformed path, at times ``r_j``.
        nodes: the functions at ``r_0 .. r_N``, one for each state.
        shift: the offset there, where there is one.
    """
    t, dt, s, ds = nodes
    C, D, speed = base.C, base.D, dt[:-1]
    if s.ndim > 1:  # a column for the channels
        C, D, speed = C[..., None], D[..., None], speed[:, None]
    here, after = s[:-1], s[1:, None]
    table = Table(t[:-1], (C * here + D * ds[:-1]) / after, D * speed * here / after)
    if shift is None:
        return table
    b, db = shift
    return table._replace(e=(base.C @ b[:-1] + base.D @ db[:-1] - b[1:]) / s[1:])
