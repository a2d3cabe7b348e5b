"""Every classical solver with a given number of calls: what a fitted solver must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ..schedules import CondOT, Schedule
from ..solver import Solver
from . import grids
from .adams import adams_bashforth
from .deis import deis
from .exploding import edm_heun, lms
from .exponential import ddim, dpm_solver, dpmpp
from .ipndm import ipndm
from .runge_kutta import TABLEAUX, euler, runge_kutta
from .unipc import unipc

__all__ = ["GRIDS", "baselines"]

#: Grids by name, as functions of the number of steps and the schedule.
GRIDS: dict[str, Callable[[int, Schedule], tuple[float, ...]]] = {
    "uniform": lambda steps, schedule: grids.uniform(steps),
    "cosine": lambda steps, schedule: grids.cosine(steps),
    "quadratic": lambda steps, schedule: grids.quadratic(steps),
    "karras": grids.karras,
    "log_snr": grids.log_snr,
}


def baselines(
    nfe: int, schedule: Schedule | None = None, grid_names: Sequence[str] = ("uniform",)
) -> dict[str, Solver]:
    """Every classical solver here that makes exactly ``nfe`` calls, by ``name`` or ``name/grid``.

    Args:
        nfe: number of network calls.
        schedule: the network's schedule, ``CondOT()`` by default.
        grid_names: which of :data:`GRIDS` to put them on.

    Returns:
        Solvers by name; those on the uniform grid have no suffix.

    Raises:
        ValueError: on an unknown grid.
    """
    unknown = [name for name in grid_names if name not in GRIDS]
    if unknown:
        raise ValueError(f"baselines: grid_names must be among {', '.join(GRIDS)}, not {', '.join(unknown)}.")
    schedule = schedule or CondOT()
    found: dict[str, Solver] = {}
    for grid_name in grid_names:
        for name, solver in _on_grid(nfe, schedule, GRIDS[grid_name]).items():
            found[name if grid_name == "uniform" else f"{name}/{grid_name}"] = solver
    return found


def _on_grid(
    nfe: int, schedule: Schedule, grid: Callable[[int, Schedule], tuple[float, ...]]
) -> dict[str, Solver]:
    each: Any = {"schedule": schedule, "grid": grid(nfe, schedule)}
    solvers = {
        "euler": euler(grid=each["grid"]),
        "ab2": adams_bashforth(2, grid=each["grid"]),
        "ab3": adams_bashforth(3, grid=each["grid"]),
        "ab4": adams_bashforth(4, grid=each["grid"]),
        "ddim": ddim(**each),
        "dpmpp_2m": dpmpp("2M", **each),
        "dpmpp_3m": dpmpp("3M", **each),
        "unipc2": unipc(2, **each),
        "unipc3": unipc(3, **each),
        "deis2": deis(2, **each),
        "deis3": deis(3, **each),
        "ipndm": ipndm(4, **each),
        "lms": lms(4, **each),
    }
    for stages, methods in _RUNGE_KUTTA.items():
        if nfe % stages == 0:
            whole = grid(nfe // stages, schedule)
            solvers |= {name: runge_kutta(TABLEAUX[name], grid=whole) for name in methods}
    # A step of infinite length in lambda costs these one call, whatever the number of stages.
    ends = int(schedule.log_snr(torch.tensor([0.0, 1.0])).isinf().sum())
    for stages, builders in _SINGLESTEP.items():
        inner, rest = divmod(nfe - ends, stages)
        if rest == 0 and inner > 0:
            finite: Any = {"schedule": schedule, "grid": grid(inner + ends, schedule)}
            solvers |= {name: build(**finite) for name, build in builders.items()}
    return solvers


#: By calls a step.
_RUNGE_KUTTA = {
    2: ("midpoint", "ralston", "heun"),
    3: ("heun3", "kutta3", "ssprk3", "bogacki_shampine"),
    4: ("rk4",),
}
#: By calls a step of finite length in lambda.
_SINGLESTEP: dict[int, dict[str, Callable[..., Solver]]] = {
    2: {
        "dpmpp_2s": partial(dpmpp, "2S"),
        "dpm_solver_2": partial(dpm_solver, "2S"),
        "edm_heun": edm_heun,
    },
    3: {"dpmpp_3s": partial(dpmpp, "3S"), "dpm_solver_3": partial(dpm_solver, "3S")},
}
