"""Every classical solver with a given number of calls: what a fitted solver must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..schedules import CondOT, Schedule
from ..solver import Solver
from . import grids
from .adams import adams_bashforth
from .exponential import ddim, dpmpp
from .runge_kutta import euler, heun, midpoint, ralston, rk4

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
    each = grid(nfe, schedule)
    solvers = {
        "euler": euler(grid=each),
        "ab2": adams_bashforth(2, grid=each),
        "ab3": adams_bashforth(3, grid=each),
        "ab4": adams_bashforth(4, grid=each),
        "ddim": ddim(schedule=schedule, grid=each),
        "dpmpp_2m": dpmpp("2M", schedule=schedule, grid=each),
        "dpmpp_3m": dpmpp("3M", schedule=schedule, grid=each),
    }
    if nfe % 2 == 0:
        half = grid(nfe // 2, schedule)
        solvers |= {"midpoint": midpoint(grid=half), "ralston": ralston(grid=half), "heun": heun(grid=half)}
    if nfe % 4 == 0:
        solvers["rk4"] = rk4(grid=grid(nfe // 4, schedule))
    # A step of infinite length in lambda costs 2S one call instead of two.
    ends = int(schedule.log_snr(torch.tensor([0.0, 1.0])).isinf().sum())
    if (nfe + ends) % 2 == 0 and (nfe + ends) // 2 > ends:
        solvers["dpmpp_2s"] = dpmpp("2S", schedule=schedule, grid=grid((nfe + ends) // 2, schedule))
    return solvers
