"""Classical solvers by name, and the baselines with a given number of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .._names import check_name
from .._ranges import STEPS, check_range
from ..schedules import CondOT, Schedule
from ..solver import Solver
from . import grids
from ._draft import Draft
from .adams import adams_bashforth
from .deis import deis, ipndm
from .exploding import edm_heun, lms
from .exponential import ddim, dpm_solver, dpmpp
from .runge_kutta import TABLEAUX, runge_kutta
from .stochastic import dpmpp_2m_sde, edm_stochastic, euler_ancestral, sa_solver
from .unipc import unipc

__all__ = [
    "GRIDS",
    "METHODS",
    "ODD",
    "STOCHASTIC",
    "Method",
    "baselines",
    "check_method",
    "method_and_grid",
    "named",
]

#: Grids by name, as functions of the number of steps and the schedule.
GRIDS: dict[str, Callable[[int, Schedule], tuple[float, ...]]] = {
    "uniform": lambda steps, schedule: grids.uniform(steps),
    "cosine": lambda steps, schedule: grids.cosine(steps),
    "quadratic": lambda steps, schedule: grids.quadratic(steps),
    "karras": grids.karras,
    "log_snr": grids.log_snr,
}


class Method(NamedTuple):
    """A classical solver as a function of its grid, and its number of calls per step.

    Args:
        make: called with ``grid=``, and ``schedule=`` if the solver is bound to one; returns a draft.
        stages: calls per step.
        bound: whether it is bound to a schedule.
        short_ends: whether a step of infinite length in lambda costs one call, whatever the stages.
        euler_last: whether the last step is Euler's, of one call.
    """

    make: Callable[..., Draft]
    stages: int = 1
    bound: bool = True
    short_ends: bool = False
    euler_last: bool = False

    def steps(self, nfe: int, schedule: Schedule) -> int | None:
        """Return the number of steps with exactly ``nfe`` calls, or ``None``."""
        ends = int(self.euler_last)
        if self.short_ends:
            ends = int(schedule.log_snr(torch.tensor([0.0, 1.0])).isinf().sum())
        inner, rest = divmod(nfe - ends, self.stages)
        return None if rest or inner < 1 else inner + ends

    def on(self, grid: Sequence[float] | Tensor, schedule: Schedule) -> Solver:
        """Return the solver on a grid."""
        return self.draft(grid, schedule).solver()

    def draft(self, grid: Sequence[float] | Tensor, schedule: Schedule) -> Draft:
        """Return the draft on a grid, whose table is differentiable in the grid."""
        return self.make(grid=grid, schedule=schedule) if self.bound else self.make(grid=grid)


#: Tableaux that are no baselines: a twin of ``rk4``, and one with too many calls per step.
_NO_BASELINES = ("three_eighths", "dormand_prince")

#: Classical solvers by name.
METHODS: dict[str, Method] = {
    **{
        name: Method(partial(runge_kutta.draft, tableau), tableau.stages, bound=False)
        for name, tableau in TABLEAUX.items()
        if name not in _NO_BASELINES
    },
    **{f"ab{order}": Method(partial(adams_bashforth.draft, order), bound=False) for order in (2, 3, 4)},
    "ddim": Method(ddim.draft),
    "dpmpp_2m": Method(partial(dpmpp.draft, "2M")),
    "dpmpp_3m": Method(partial(dpmpp.draft, "3M")),
    "unipc2": Method(partial(unipc.draft, 2)),
    "unipc3": Method(partial(unipc.draft, 3)),
    "deis2": Method(partial(deis.draft, 2)),
    "deis3": Method(partial(deis.draft, 3)),
    "ipndm": Method(partial(ipndm.draft, 4)),
    "lms": Method(partial(lms.draft, 4)),
    "dpmpp_2s": Method(partial(dpmpp.draft, "2S"), 2, short_ends=True),
    "dpm_solver_2": Method(partial(dpm_solver.draft, "2S"), 2, short_ends=True),
    "edm_heun": Method(edm_heun.draft, 2, short_ends=True),
    "dpmpp_3s": Method(partial(dpmpp.draft, "3S"), 3, short_ends=True),
    "dpm_solver_3": Method(partial(dpm_solver.draft, "3S"), 3, short_ends=True),
}

#: Solvers that make an odd number of calls by another last step. They are no baselines.
ODD = {
    "heun": Method(
        partial(runge_kutta.draft, TABLEAUX["heun"], last=TABLEAUX["euler"]), 2, bound=False, euler_last=True
    )
}

#: Solvers of SDEs, which add noise. They are no baselines.
STOCHASTIC: dict[str, Method] = {
    "euler_ancestral": Method(euler_ancestral.draft),
    "dpmpp_2m_sde": Method(dpmpp_2m_sde.draft),
    "sa_solver": Method(sa_solver.draft),
    "edm_stochastic": Method(edm_stochastic.draft, 2, short_ends=True),
}


def named(name: str, nfe: int, schedule: Schedule | None = None) -> Solver:
    """Return the classical solver ``name``, or ``name/grid``, with ``nfe`` calls.

    Args:
        name: one of :data:`METHODS` or :data:`STOCHASTIC`, on the uniform grid or, after a slash, one of
            :data:`GRIDS`.
        nfe: number of network calls; ``heun`` makes an odd number with a last step of Euler's.
        schedule: the network's schedule, ``CondOT()`` by default.

    Raises:
        ValueError: on an unknown solver or grid, or one that cannot make so many calls.
    """
    schedule = schedule or CondOT()
    method, grid = method_and_grid(name, nfe, schedule)
    solver = method.on(grid, schedule)
    return replace(solver, name=name) if "/" in name else solver


def method_and_grid(name: str, nfe: int, schedule: Schedule) -> tuple[Method, tuple[float, ...]]:
    """Return the method and the grid of the solver ``name``, or ``name/grid``, with ``nfe`` calls."""
    (nfe,) = check_range("classical", STEPS, nfe=nfe)
    name, _, grid = name.partition("/")
    known = {**METHODS, **STOCHASTIC}
    check_name("classical: solver", name, known)
    _check_grids([grid or "uniform"])

    def of(calls: int) -> tuple[Method, int] | None:
        method = ODD[name] if name in ODD and calls % 2 else known[name]
        steps = method.steps(calls, schedule)
        return None if steps is None else (method, steps)

    found = of(nfe)
    if found is None:
        others = [calls for calls in range(1, nfe + 20) if of(calls)]
        above = next(calls for calls in others if calls > nfe)
        near = " or ".join(map(str, [*[calls for calls in others if calls < nfe][-1:], above]))
        raise ValueError(
            f"classical: {name!r} makes {', '.join(map(str, others[:3]))}, ... calls under {schedule!r}, not "
            f"{nfe}; take {near}."
        )
    method, steps = found
    return method, GRIDS[grid or "uniform"](steps, schedule)


def baselines(
    nfe: int, schedule: Schedule | None = None, grid_names: Sequence[str] = ("uniform",)
) -> dict[str, Solver]:
    """Return all classical solvers that make exactly ``nfe`` calls, by ``name`` or ``name/grid``.

    Args:
        nfe: number of network calls.
        schedule: the network's schedule, ``CondOT()`` by default.
        grid_names: names of the grids, in :data:`GRIDS`.

    Returns:
        Solvers by name; those on the uniform grid have no suffix.

    Raises:
        ValueError: on an unknown grid.
    """
    _check_grids(grid_names)
    schedule = schedule or CondOT()
    names = [
        name if grid == "uniform" else f"{name}/{grid}"
        for grid in grid_names
        for name, method in METHODS.items()
        if method.steps(nfe, schedule) is not None
    ]
    return {name: named(name, nfe, schedule) for name in names}


def check_method(name: str) -> None:
    """Raise a ``ValueError`` unless ``name`` is that of a solver."""
    check_name("classical: solver", name, METHODS)


def _check_grids(names: Sequence[str]) -> None:
    for name in names:
        check_name("classical: grid", name, GRIDS)
