"""The classical Runge-Kutta method on a fixed grid, for velocities that are discontinuous in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ChosenGrid", "choose_grid", "grid_edges", "most_steps", "rk4", "steps_onto"]

#: Stages keep this share of the step away from its ends, where the velocity may jump.
_INSIDE = 1e-6
#: Calls of a step.
_CALLS = 4
#: Error, over the root mean square of the samples, beyond which a grid is useless.
_USELESS = 0.01


class ChosenGrid(NamedTuple):
    """A fixed grid: steps, error, calls of a solution, and all calls per sample made to choose it."""

    steps: int
    error: float
    nfe: int
    calls: int
    useless: bool  # its error is above 1% of the samples


def choose_grid(
    solved: Callable[[int], tuple[Tensor, int]], fewest: int, max_nfe: int, tolerances: tuple[float, float]
) -> ChosenGrid:
    """Double the steps of a grid until its error meets the tolerances: the RMSE to half the step size.

    Args:
        solved: returns samples and calls for a number of steps.
        fewest: fewest steps.
        max_nfe: most calls of a solution with the chosen grid, but for that with the fewest steps.
        tolerances: of the error, relative and absolute.

    Returns:
        That grid, or the finest within ``max_nfe``.
    """
    rtol, atol = tolerances
    steps = fewest
    x1, nfe = solved(steps)
    calls = nfe
    while True:
        finer, more = solved(2 * steps)
        calls += more
        error, scale = (x.square().mean().sqrt().item() for x in (finer - x1, finer))
        if more > max_nfe or error <= atol + rtol * scale:
            break
        steps, x1, nfe = 2 * steps, finer, more
    return ChosenGrid(steps, error, nfe, calls, useless=not error <= _USELESS * scale < math.inf)


def grid_edges(times: Sequence[float], jumps: Sequence[float], steps: int) -> list[float]:
    """Return the ends of about ``steps`` steps, dense at both ends of [0, 1], where velocities vary most.

    Args:
        times: times to step onto, increasing from 0.
        jumps: times at which the velocity is discontinuous; stepped onto if there are no more than steps.
        steps: number of steps from 0 to 1 of equal length in ``r``, for ``t = (1 - cos(pi r)) / 2``.
    """
    within = [t for t in jumps if times[0] < t < times[-1]] if len(jumps) <= steps else []
    edges = [times[0]]
    for t in sorted({*times[1:], *within}):
        start, end = (math.acos(1 - 2 * at) / math.pi for at in (edges[-1], t))
        count = max(1, math.ceil(steps * (end - start) - 1e-6))
        inner = (start + (end - start) * i / count for i in range(1, count))
        edges += [*((1 - math.cos(math.pi * r)) / 2 for r in inner), t]
    return edges


def most_steps(jumps: Sequence[float], max_nfe: int) -> int:
    """Return the most steps, 1 at least, of a grid within a limit of calls that steps onto a few jumps."""
    spare = max_nfe // _CALLS - len(jumps)
    return max(1, spare if spare >= len(jumps) else max_nfe // _CALLS)


def steps_onto(jumps: Sequence[float], max_nfe: int) -> int:
    """Return the fewest steps of a grid that steps onto all jumps; 0 if there are none, or calls too few."""
    edges = grid_edges((0.0, 1.0), jumps, len(jumps))
    return len(jumps) if _CALLS * (len(edges) - 1) <= max_nfe else 0


@torch.no_grad()
def rk4(
    velocity: Callable[[float, Tensor], Tensor], state: Tensor, edges: Sequence[float], times: Sequence[float]
) -> tuple[Tensor, int]:
    """Integrate ``d state / dt = velocity(t, state)`` with four calls a step (Kutta 1901).

    Args:
        velocity: the right-hand side; it is called inside the steps only, not at the edges.
        state: the state at the first edge.
        edges: ends of the steps, increasing.
        times: those edges whose states are returned.

    Returns:
        The states, stacked along a new first dimension, and the number of calls.

    Raises:
        FloatingPointError: when the velocity is NaN or infinite.
    """
    wanted, states = set(times), [state]
    for start, end in pairwise(edges):
        h, margin = end - start, _INSIDE * (end - start)
        first = velocity(start + margin, state)
        second = velocity((start + end) / 2, state + h / 2 * first)
        third = velocity((start + end) / 2, state + h / 2 * second)
        fourth = velocity(end - margin, state + h * third)
        state = state + h / 6 * (first + 2 * (second + third) + fourth)
        if not state.isfinite().all():
            raise FloatingPointError(f"reference: the states became NaN or infinite before t = {end:.6g}.")
        if end in wanted:
            states.append(state)
    return torch.stack(states), _CALLS * (len(edges) - 1)
