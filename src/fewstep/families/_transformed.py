"""The scale-time transform of a table: any solver on a scaled and re-timed path."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._table import Table

__all__ = ["ScaleTimeNodes", "transformed"]


class ScaleTimeNodes(NamedTuple):
    """The functions of a scale-time transform at its nodes, float64 of shape ``(K,)``.

    ``t``: times; ``dt``: their derivatives in r; ``s``: scales; ``ds``: their derivatives in r. No network
    call is made at the last node, whose slopes are unused there.
    """

    t: Tensor
    dt: Tensor
    s: Tensor
    ds: Tensor

    def at(self, index: list[int]) -> ScaleTimeNodes:
        """Return the functions at some of the nodes."""
        return ScaleTimeNodes(*(value[index] for value in self))


def transformed(base: Table, nodes: ScaleTimeNodes) -> Table:
    """Return the table of velocities with the steps of ``base`` on ``xbar(r) = s(r) x(t(r))``.

    ``base`` reads states ``xbar_j = s_j x_j`` and velocities ``ubar_j = s'_j x_j + t'_j s_j u_j`` (Shaul et
    al., *Bespoke Solvers for Generative Flow Models*, ICLR 2024, section 2), so that with its ``C`` and ``D``

        x_i = sum_j (C_ij s_j + D_ij s'_j) / s_i x_j + D_ij t'_j s_j / s_i u_j .

    Args:
        base: a table of ``N`` velocities of the transformed path, at times ``r_j``.
        nodes: the functions at ``r_0 .. r_N``, one per state.
    """
    t, dt, s, ds = nodes
    here, after = s[:-1], s[1:, None]
    C, D = (base.C * here + base.D * ds[:-1]) / after, base.D * dt[:-1] * here / after
    return Table(t[:-1], C, D)
