"""Guided solvers: one theta for every guidance scale in a range.

A field changes smoothly with its guidance scale ``w``, and so does its best solver. The parameters of the
solvers of another family are polynomials in the logarithm of ``w``,

    theta(w) = sum_k T_k(v) theta_k,    v = log(w^2 / (w_min w_max)) / log(w_max / w_min),

with the Chebyshev polynomials ``T_k`` on ``-1 <= v <= 1``, all bounded by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import schedules
from .._names import check_name
from .._reading import check
from ._family import Linked, series
from .non_stationary import NonStationary
from .smooth_corrections import SmoothCorrections
from .timesteps import Timesteps

__all__ = ["Guided", "describe_solvers", "solvers_from_dict"]

#: Kinds of what :meth:`Guided.describe` returns, and the most calls of its solvers, whose tables are squares
#: of so many.
_KINDS = {
    "low": float,
    "high": float,
    "terms": int,
    "curve": ({"name": str}, None),
    "non_stationary": ({"base": str, "nfe": int, "schedule": {"name": str}}, None),
}
_CALLS = 1000


class Guided:
    """The solvers of a family, or of a curve, at every guidance scale in a range.

    ``theta`` is a float64 vector of ``size`` numbers; at zero every solver is the start of the family,
    whatever the scale.

    Args:
        solvers: non-stationary solvers around :class:`~fewstep.families.Timesteps`, with one number of calls;
            or curves, with any number.
        low: least guidance scale, above 0.
        high: largest guidance scale; if it equals ``low``, ``terms`` must be 1.
        terms: number of polynomials, at least 1. Between the fitted scales, two gave the best solvers; with
            as many polynomials as scales, errors there were up to three times as large.

    Raises:
        ValueError: on a range or number of terms that is not allowed.
    """

    name: ClassVar[str] = "guided"

    def __init__(
        self, solvers: NonStationary | SmoothCorrections, low: float, high: float, terms: int = 2
    ) -> None:
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"Guided: guidance scales must be positive numbers, the least first, not {low} and {high}."
            )
        if isinstance(terms, bool) or not isinstance(terms, int) or terms < 1:
            raise ValueError(f"Guided: terms must be a whole number of at least 1, not {terms!r}.")
        if low == high and terms > 1:
            raise ValueError(f"Guided: the one guidance scale {low:g} leaves terms=1, not {terms}.")
        self.solvers, self.low, self.high, self.terms = solvers, float(low), float(high), terms
        self.size = terms * solvers.size

    @property
    def nfe(self) -> int | None:
        """Network calls of every solver, or ``None`` for curves."""
        return self.solvers.nfe if isinstance(self.solvers, NonStationary) else None

    def basis(self, guidance: float) -> Tensor:
        """Return ``T_0(v), T_1(v), ...`` at a guidance scale, float64 of shape ``(terms,)``.

        Raises:
            ValueError: outside the range.
        """
        if not self.low <= guidance <= self.high:
            raise ValueError(
                f"Guided: guidance={guidance:g} is outside the scales fitted, {self.low:g} to {self.high:g}, "
                "and nothing is known there; fit with scales that include it."
            )
        if self.terms == 1:
            return torch.ones(1, dtype=torch.float64)
        middle, half = math.log(self.low * self.high) / 2, math.log(self.high / self.low) / 2
        v = min(1.0, max(-1.0, (math.log(guidance) - middle) / half))
        return torch.cos(math.acos(v) * torch.arange(self.terms, dtype=torch.float64))

    def member(self, nfe: int | None = None, guidance: float | None = None) -> Linked:
        """Return the solvers for a guidance scale, linked to this theta.

        Args:
            nfe: number of network calls, needed only with curves.
            guidance: the scale, from ``low`` to ``high``; needed unless they are equal.

        Raises:
            ValueError: outside the range, or for a number of calls without solvers.
        """
        if guidance is None and self.low < self.high:
            raise ValueError(
                f"Guided: these solvers serve the guidance scales {self.low:g} to {self.high:g}; say which, "
                f"as guidance={self.low:g}."
            )
        outer = series(self.basis(self.low if guidance is None else guidance), self.solvers.size)
        own, link = self.solvers.member(nfe)
        return Linked(own, link @ outer)

    def describe(self) -> dict[str, Any]:
        """Return all arguments but theta, JSON-ready; the inverse of :meth:`from_dict`.

        Raises:
            ValueError: for non-stationary solvers, except around the times of a named solver.
        """
        facts = {"low": self.low, "high": self.high, "terms": self.terms}
        if not isinstance(self.solvers, NonStationary):
            return {**facts, "curve": describe_solvers(self.solvers)}
        anchor = self.solvers.anchor
        if not isinstance(anchor, Timesteps):
            raise ValueError(
                "Guided: only corrections to a classical solver's own times can be written down."
            )
        start = {"base": anchor.base, "nfe": anchor.nfe, "schedule": anchor.schedule.to_dict()}
        return {**facts, "non_stationary": start}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Guided:
        """Return the solvers described by :meth:`describe`."""
        check(facts, _KINDS, "family")
        range_ = {key: facts[key] for key in ("low", "high", "terms")}
        if facts.get("curve") is not None:
            curves = solvers_from_dict(facts["curve"])
            if isinstance(curves, Guided):
                raise ValueError("family: a guided one is made of a curve, not of another guided one.")
            return cls(curves, **range_)
        start = facts["non_stationary"]
        if not 1 <= start["nfe"] <= _CALLS:
            raise ValueError(f"family: nfe must be 1 to {_CALLS}, not {start['nfe']}")
        schedule = schedules.from_dict(start["schedule"])
        times = Timesteps(start["base"], start["nfe"], schedule, decoupled=True)
        return cls(NonStationary(times), **range_)


def describe_solvers(solvers: SmoothCorrections | Guided) -> dict[str, Any]:
    """Return the name and arguments of the solvers, JSON-ready."""
    return {"name": solvers.name, **solvers.describe()}


def solvers_from_dict(facts: Mapping[str, Any]) -> SmoothCorrections | Guided:
    """Return the solvers described by :func:`describe_solvers`.

    Raises:
        ValueError: on an unknown name.
    """
    kinds: dict[str, type[SmoothCorrections] | type[Guided]] = {
        kind.name: kind for kind in (SmoothCorrections, Guided)
    }
    arguments = dict(facts)
    name = arguments.pop("name", None)
    check_name("family: name", name, kinds)
    return kinds[name].from_dict(arguments)
