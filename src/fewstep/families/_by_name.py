"""Families by name, at the start of a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..field import Field
from ..schedules import Schedule
from ..solver import Solver
from ._family import Family, Linked
from ._refined import refined
from ._start import classical_start, default_init, only_one
from .following import Following
from .non_stationary import NonStationary
from .scale_time import BASES, ScaleTime
from .smooth_corrections import TERMS, SmoothCorrections
from .timesteps import Timesteps

__all__ = ["FAMILIES", "Solvers"]


class Solvers(Protocol):
    """Solvers that share a theta, for one or many numbers of calls and one or many guidance scales."""

    size: int

    def member(self, nfe: int | None = None, guidance: float | None = None) -> Linked:
        """Return the solvers with ``nfe`` calls at a guidance scale, linked to theta."""


def _non_stationary(nfes: Sequence[int], init: str | Solver | None, field: Field) -> NonStationary:
    nfe = only_one(nfes, NonStationary.name)
    if not isinstance(init, Solver):
        return NonStationary(classical_start(nfe, init, field, decoupled=True))
    if init.nfe > nfe:
        raise ValueError(
            f"fit: nfe={nfe}, but init {init.name!r} makes {init.nfe} calls; it may make fewer, but not more."
        )
    return _around(refined(init, nfe, field.schedule), field.schedule)


def _around(start: Solver, schedule: Schedule) -> NonStationary:
    try:
        return NonStationary(Following(start, schedule))
    except ValueError:  # two calls at one time, as Heun's: the coefficients are fixed while the times move
        return NonStationary(start, schedule)


def _timesteps(nfes: Sequence[int], init: str | Solver | None, field: Field) -> Timesteps:
    nfe = only_one(nfes, Timesteps.name)
    if isinstance(init, Solver):
        raise ValueError(
            "fit: family='timesteps' moves the times of a classical solver, so init must name one, such as "
            f"'ab2', and not be the solver {init.name!r}."
        )
    family = classical_start(nfe, init, field)
    if not family.size:
        raise ValueError(
            f"fit: family='timesteps' leaves nothing free where {family.base!r} makes one step of its {nfe} "
            "calls; raise nfe, or take 'non_stationary'."
        )
    return family


def _scale_time(nfes: Sequence[int], init: str | Solver | None, field: Field) -> ScaleTime:
    nfe, base = only_one(nfes, ScaleTime.name), "midpoint" if init is None else init
    if not isinstance(base, str) or base not in BASES:
        given = repr(base) if isinstance(base, str) else f"the solver {base.name!r}"
        raise ValueError(
            "fit: family='scale_time' steps with a base method on times of its own, so init must be one of "
            f"{', '.join(BASES)}, not {given}."
        )
    stages = BASES[base](1).nfe
    if nfe % stages:
        raise ValueError(
            f"fit: family='scale_time' on {base!r} makes {stages} calls a step, so nfe must be "
            f"{'even' if stages == 2 else f'a multiple of {stages}'}, not {nfe}; take {nfe + -nfe % stages}, "
            "or init='euler' or 'ab2', or family='non_stationary'."
        )
    return ScaleTime(base, nfe // stages)


def _smooth_corrections(nfes: Sequence[int], init: str | Solver | None, field: Field) -> SmoothCorrections:
    """Return smooth corrections with at most as many terms as numbers of calls."""
    base = default_init(max(nfes), field) if init in (None, "auto") else _named("smooth_corrections", init)
    return SmoothCorrections(base, field.schedule, terms=min(TERMS, len(nfes)))


def _named(family: str, init: str | Solver | None) -> str:
    if not isinstance(init, str):
        given = f"the solver {init.name!r}" if isinstance(init, Solver) else repr(init)
        raise ValueError(f"fit: family={family!r} starts from a classical solver by name, not from {given}.")
    return init


#: Functions that make the solvers of a family from numbers of calls, a start and a field.
FAMILIES: dict[str, Callable[[Sequence[int], str | Solver | None, Field], Family | SmoothCorrections]] = {
    "non_stationary": _non_stationary,
    "timesteps": _timesteps,
    "scale_time": _scale_time,
    "smooth_corrections": _smooth_corrections,
}
