"""Curves: one theta for every number of calls.

A scale-time solver (Shaul et al., *Bespoke Solvers for Generative Flow Models*, ICLR 2024) has free numbers
at each of its nodes, which are of no use for another number of calls. Here ``t(r)`` and ``s(r)`` are
functions on ``0 <= r <= 1``, which give the nodes of any solver, with their slopes:

    t(r) = sum_k p_k B_k(r),    log s(r) = sum_k c_k B_k(r),    B_k(r) = binom(K, k) r^k (1 - r)^(K - k),

with ``0 = p_0 < ... < p_K = 1``, so that t increases, and ``c_0 = 0``, so that ``s(0) = 1``. BezierFlow
(arXiv:2512.13255) uses such polynomials for the signal and noise of a schedule, for one number of calls.

The exact slopes are best for vanishing steps, but not for long ones, and in scale-time solvers they are
free. A solver with ``n`` calls uses ``t' exp((4 / n)^2 e(r))`` and ``s' + s (4 / n)^2 d(r)`` instead,
with polynomials ``e`` and ``d`` of the same degree.

A method with one call per step may also have free weights. To the step from ``r_i`` of length ``h``,

    h [ (4 / n) g_1(r_i) nabla ubar_i + g_2(r_i) nabla^2 ubar_i + g_3(r_i) nabla^3 ubar_i + ... ]

is added, with backward differences of the velocities. (Adams-Bashforth methods are such sums, with
coefficients ``1 / 2``, ``5 / 12`` and ``3 / 8`` of the first three.) Both keep order 2, and no higher order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .._table import Table
from ..classical import grids
from ..classical._baselines import METHODS
from ..schedules import CondOT
from ..solver import Solver
from ._family import Family, padded
from ._linked import Linked, series
from ._transformed import ScaleTimeNodes, transformed

__all__ = ["Curve", "CurveMember", "bernstein", "stated"]

#: Number of calls at which the terms of theta have equal weights.
UNIT = 4
_ARGUMENTS = ("base", "degree", "train", "terms", "free_slopes", "differences")
#: Number of differences with free weights, if the base allows them.
DIFFERENCES = 4


class Curve:
    """Smooth functions of ``r``, which define a solver for any number of calls.

    ``theta`` is a float64 vector of ``size`` numbers; at zero every solver is the plain base method. It
    holds the first ``terms`` terms of a series in ``1 / n``: the curve for ``n`` calls is that of
    ``theta_0 + theta_1 (4 / n) + ...``, as the best curve depends on the length of the steps.

    Args:
        base: the method whose steps are made in r: a Runge-Kutta or Adams-Bashforth method in
            ``classical.METHODS``, on the uniform grid in r.
        degree: degree ``K`` of the Bernstein polynomials, at least 1.
        train: ``"both"``, or only ``"time"`` (s = 1) or only ``"scale"`` (t = r); the weights of differences
            are free in any case.
        terms: terms of the series in ``1 / n``, at least 1; with 1 the curve is the same for every n.
        free_slopes: whether t' and s' deviate from the exact slopes by ``e`` and ``d``.
        differences: number of backward differences with free weights ``g_k``; 0 for a base with several calls
            per step.

    Raises:
        ValueError: on an unknown base or ``train``, a degree or number of terms that is not positive, or
            differences for a base with several calls per step.
    """

    name: ClassVar[str] = "curve"
    citation: ClassVar[tuple[str, ...]] = (
        "Shaul et al., Bespoke Solvers for Generative Flow Models, ICLR 2024, arXiv:2310.19075",
    )

    def __init__(
        self,
        base: str = "ab2",
        degree: int = 5,
        train: Literal["both", "time", "scale"] = "both",
        terms: int = 2,
        free_slopes: bool = True,
        differences: int | None = None,
    ) -> None:
        free = [name for name, method in METHODS.items() if not method.bound]
        if base not in free:
            raise ValueError(f"Curve: base must be one of {', '.join(free)}, not {base!r}.")
        if train not in ("both", "time", "scale"):
            raise ValueError(f"Curve: train must be 'both', 'time' or 'scale', not {train!r}.")
        for label, value in (("degree", degree), ("terms", terms)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Curve: {label} must be a whole number of at least 1, not {value!r}.")
        several = METHODS[base].stages > 1
        differences = (0 if several else DIFFERENCES) if differences is None else differences
        if isinstance(differences, bool) or not isinstance(differences, int) or differences < 0:
            raise ValueError(f"Curve: differences must be a whole number of at least 0, not {differences!r}.")
        if differences and several:
            raise ValueError(
                f"Curve: base {base!r} makes several calls a step, which leaves no smooth differences; pass "
                "differences=0, or base='ab2'."
            )
        self.base, self.degree, self.train = base, degree, train
        self.terms, self.free_slopes, self.differences = terms, free_slopes, differences
        # Only ratios of the increments of p matter, so the last one is fixed.
        time, scale, loose = train != "scale", train != "time", (degree + 1) * free_slopes
        self._sizes = [time * (degree - 1), scale * degree, time * loose, scale * loose]
        self._sizes.append(differences * (degree + 1))
        self.size = terms * sum(self._sizes)

    def link(self, nfe: int) -> Tensor:
        """Return the matrix that maps theta to ``theta_0 + theta_1 (4 / n) + ...``."""
        return series((UNIT / nfe) ** torch.arange(self.terms, dtype=torch.float64), sum(self._sizes))

    def nodes(self, theta: Tensor, r: Tensor, nfe: int) -> ScaleTimeNodes:
        """Return t, t', s, s' at ``r`` for solvers of ``nfe`` calls, differentiable in theta and r."""
        time, scale, e, d, _ = self._at(theta, nfe)
        K, zero = self.degree, theta.new_zeros(1)
        # Deviation of p from the line p_k = k / K, exactly zero at theta = 0.
        bend = padded(time, K).softmax(0) - 1 / K
        levels = torch.cat([zero, padded(scale, K)])
        e, d = padded(e, K + 1), padded(d, K + 1)
        values, slopes = bernstein(K, r), K * bernstein(K - 1, r)
        s, loose = (values @ levels).exp(), (UNIT / nfe) ** 2 * values
        return ScaleTimeNodes(
            t=r + values @ torch.cat([zero, bend.cumsum(0)[:-1], zero]),
            dt=(1 + slopes @ bend) * (loose @ e).exp(),
            s=s,
            ds=s * (slopes @ levels.diff() + loose @ d),
        )

    def weights(self, theta: Tensor, r: Tensor, nfe: int) -> Tensor:
        """Return ``(4 / n) g_1, g_2, g_3, ...`` at ``r``, shape ``(differences, len(r))``."""
        g = self._at(theta, nfe)[-1].reshape(self.differences, -1) @ bernstein(self.degree, r).T
        return torch.cat([UNIT / nfe * g[:1], g[1:]])

    def _at(self, theta: Tensor, nfe: int) -> list[Tensor]:
        parts: list[Tensor] = list((self.link(nfe) @ theta).split(self._sizes))
        return parts

    @property
    def stages(self) -> int:
        """Calls per step of the base."""
        return METHODS[self.base].stages

    def member(self, nfe: int | None = None, guidance: float | None = None) -> Linked:
        """Return the solvers with ``nfe`` calls, linked to this curve's theta; they serve any guidance scale.

        Raises:
            ValueError: when the base cannot make exactly ``nfe`` calls.
        """
        nfe = stated(nfe)
        alone = Curve(**{**self.describe(), "terms": 1})
        return Linked(CurveMember(alone, nfe), self.link(nfe))

    def solver(self, theta: Tensor, nfe: int, **facts: Any) -> Solver:
        """Return the solver with ``nfe`` calls on the curve of ``theta``, with further facts for its file."""
        return self.member(nfe).solver(theta, **facts)

    def describe(self) -> dict[str, Any]:
        """Return the arguments of the curve, JSON-ready."""
        return {key: getattr(self, key) for key in _ARGUMENTS}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Curve:
        """Return the family described by :meth:`describe`."""
        return cls(**facts)


class CurveMember(Family):
    """The solvers with ``nfe`` calls on a curve of one term."""

    name: ClassVar[str] = Curve.name
    citation: ClassVar[tuple[str, ...]] = Curve.citation

    def __init__(self, curve: Curve, nfe: int) -> None:
        method, schedule = METHODS[curve.base], CondOT()  # not used by an unbound method
        if (
            isinstance(nfe, bool)
            or not isinstance(nfe, int)
            or (steps := method.steps(nfe, schedule)) is None
        ):
            raise ValueError(
                f"Curve: base {curve.base!r} makes {method.stages} calls a step, so nfe must be a positive "
                f"multiple of {method.stages}, not {nfe!r}."
            )
        base = method.on(grids.uniform(steps), schedule)
        self.curve, self.nfe, self.size, self.start = curve, nfe, curve.size, curve.base
        self.points = base.points
        self._base = base.table
        self.r = torch.cat([base.table.times, torch.tensor([base.end], dtype=torch.float64)])

    def table(self, theta: Tensor) -> Table:
        base = self._base
        if self.curve.differences:
            base = base._replace(D=base.D + self._corrections(theta))
        return transformed(base, self.curve.nodes(theta, self.r, self.nfe))

    def _corrections(self, theta: Tensor) -> Tensor:
        """Return ``sum_k h g_k nabla^k``, a matrix that acts on the velocities of all steps; ``(N, N)``."""
        h, total = self.r.diff(), torch.zeros_like(self._base.D)
        nabla = torch.eye(self.nfe, dtype=torch.float64)
        for k, g in enumerate(self.curve.weights(theta, self.r[:-1], self.nfe), start=1):
            nabla = torch.cat([nabla[:1], nabla.diff(dim=0)])
            known = torch.arange(self.nfe) >= k  # steps with k earlier velocities
            total = total + (h * g * known)[:, None] * nabla
        return total

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {**self.curve.describe(), "theta": theta.tolist()}


def stated(nfe: int | None) -> int:
    """Return the number of calls, which solvers on a curve need."""
    if nfe is None:
        raise ValueError("curve: these solvers have any number of calls; say which, as nfe=8.")
    return nfe


def bernstein(degree: int, r: Tensor) -> Tensor:
    """Return the Bernstein polynomials of a degree at ``n`` points, shape ``(n, degree + 1)``."""
    k = torch.arange(degree + 1)
    binomial = torch.tensor([math.comb(degree, i) for i in range(degree + 1)], dtype=r.dtype)
    return binomial * r[:, None] ** k * (1 - r[:, None]) ** (degree - k)
