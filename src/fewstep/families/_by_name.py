"""Families by name, at the start of a fit, and tables of velocities for a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from .._table import Reduced
from ..classical import named
from ..field import Field
from ..solver import Solver
from ._family import Family, Linked
from ._refined import refined
from .following import Following
from .non_stationary import NonStationary
from .scale_time import BASES, ScaleTime
from .smooth_corrections import TERMS, SmoothCorrections
from .timesteps import Timesteps

__all__ = ["FAMILIES", "Solvers", "velocity_tables"]


class Solvers(Protocol):
    """Solvers that share a theta, for one or many numbers of calls and one or many guidance scales."""

    size: int

    def member(self, nfe: int | None = None, guidance: float | None = None) -> Linked:
        """Return the solvers with ``nfe`` calls at a guidance scale, linked to theta."""


def _non_stationary(nfes: Sequence[int], init: str | Solver | None, field: Field) -> NonStationary:
    nfe = _only_one(nfes, NonStationary.name)
    if not isinstance(init, Solver):
        return NonStationary(_classical_start(nfe, init, field, decoupled=True))
    init.check_ode("fit: init")
    if init.nfe > nfe:
        raise ValueError(
            f"fit: nfe={nfe}, but init {init.name!r} makes {init.nfe} calls; it may make fewer, but not more."
        )
    start = refined(init, nfe, field.schedule)
    try:
        return NonStationary(Following(start, field.schedule))
    except ValueError:  # two calls at one time, as Heun's: the coefficients are fixed while the times move
        return NonStationary(start, field.schedule)


def _timesteps(nfes: Sequence[int], init: str | Solver | None, field: Field) -> Timesteps:
    nfe = _only_one(nfes, Timesteps.name)
    if isinstance(init, Solver):
        raise ValueError(
            "fit: family='timesteps' moves the times of a classical solver, so init must name one, such as "
            f"'ab2', and not be the solver {init.name!r}."
        )
    family = _classical_start(nfe, init, field)
    if not family.size:
        raise ValueError(
            f"fit: family='timesteps' leaves nothing free where {family.base!r} makes one step of its {nfe} "
            "calls; raise nfe, or take 'non_stationary'."
        )
    return family


def _scale_time(nfes: Sequence[int], init: str | Solver | None, field: Field) -> ScaleTime:
    nfe, base = _only_one(nfes, ScaleTime.name), "midpoint" if init is None else init
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
    base = _default_init(max(nfes), field) if init in (None, "auto") else init
    if not isinstance(base, str):
        given = f"the solver {base.name!r}" if isinstance(base, Solver) else repr(base)
        raise ValueError(
            f"fit: family='smooth_corrections' starts from a classical solver by name, not from {given}."
        )
    return SmoothCorrections(base, field.schedule, terms=min(TERMS, len(nfes)))


#: Functions that make the solvers of a family from numbers of calls, a start and a field.
FAMILIES: dict[str, Callable[[Sequence[int], str | Solver | None, Field], Family | SmoothCorrections]] = {
    "non_stationary": _non_stationary,
    "timesteps": _timesteps,
    "scale_time": _scale_time,
    "smooth_corrections": _smooth_corrections,
}


def _default_init(nfe: int, field: Field) -> str:
    """Return ``"deis3/cosine"``, or ``"ab2"`` if that has no table of velocities under the schedule.

    With free, decoupled times, DEIS on the cosine grid was the better start in 20 of 20 studies.
    """
    name = "deis3/cosine"
    return name if velocity_tables({name: named(name, nfe, field.schedule)}, field) else "ab2"


def _classical_start(
    nfe: int, init: str | Solver | None, field: Field, *, decoupled: bool = False
) -> Timesteps:
    """Return a classical solver by name, or the default one, with free times."""
    name = _default_init(nfe, field) if init in (None, "auto") else init
    try:
        return Timesteps(str(name), nfe, field.schedule, decoupled=decoupled)
    except ValueError as error:
        raise ValueError(f"fit: init cannot be {name!r}; {error}") from None


def _only_one(nfes: Sequence[int], family: str) -> int:
    """Return the number of calls, for families that have only one."""
    if len(nfes) > 1:
        raise ValueError(
            f"fit: family={family!r} makes solvers with one number of calls, not with "
            f"{', '.join(map(str, nfes))}; fit them one by one, or take family='smooth_corrections'."
        )
    return nfes[0]


def velocity_tables(solvers: Mapping[str, Solver], field: Field) -> dict[str, Reduced]:
    """Return the tables of velocities of the solvers that have one for this field."""
    tables = {}
    for name, solver in solvers.items():
        with suppress(ValueError):
            solver.to(field.prediction, field.schedule)  # the table used in sampling
            tables[name] = solver.to("velocity", field.schedule).table.unroll()
    return tables
