"""Time grids optimised for one field by dynamic programming over nearly exact trajectories.

A grid is a path through candidate times; its cost is the error of one-step solves along it. GITS (Chen et al.
2024) adds up local errors of steps that start on the exact trajectory; optimal steps (Pei et al. 2025) follow
the state that the previous steps reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._progress import progress_bar
from .._ranges import POSITIVE, check_range
from ..field import Field
from ..pairs import Pairs
from ._grid_task import Rule, SearchTask, noises, rmse
from ._grids import check_steps

__all__ = ["GridSearch", "gits", "optimal_steps"]


class GridSearch(NamedTuple):
    """The result of a search: the grid, the network calls made, and the grid's cost."""

    grid: tuple[float, ...]
    calls: int  #: network calls, one per sample and evaluation, including the reference's
    cost: float


@torch.no_grad()
def gits(
    field: Field,
    steps: int,
    noise: int | Tensor | Pairs = 128,
    *,
    coefficient: float = 1.0,
    rule: Rule = "euler",
    candidates: Sequence[float] | None = None,
    seed: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    batch: int = 32,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
) -> GridSearch:
    """Return the grid with the least sum of local errors (GITS; Chen et al. 2024, *Trajectory Regularity*).

    The cost of a step between two candidate times is the mean over samples of the RMSE at the end of a single
    step that starts on the reference trajectory. The result has the least ``sum_k coefficient^k cost_k``,
    ``k = 0, 1, ...``, of all grids with ``steps`` steps.

    The paper's one-step rule is Euler in ``sigma``, which is DDIM. The default here is Euler in the velocity;
    ``rule="ddim"`` is better suited to DDIM. On ``CondOT`` both are the same. A grid is optimal for the rule
    of its search: for distributions with few narrow modes, multistep solvers can be worse on it than on a
    uniform grid, and less so on the grid of :func:`optimal_steps`.

    Args:
        field: the model.
        steps: number of steps of the grid.
        noise: the number of noises to draw, or the noises, or pairs with noises and conditions.
        coefficient: weight of a step relative to the step before. The paper uses 1.15, for costs in EDM's
            coordinates; on the bundled flows, with costs in the coordinates of straight paths, 1 was better.
        rule: ``"euler"`` in the velocity, or ``"ddim"``.
        candidates: candidate times, increasing from 0 to the end of the grid; by default 61 times on a cosine
            grid. The paper has as many, with Karras' spacing.
        seed: seed of drawn noises; use another one for comparisons.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of the reference.
        max_nfe: limit of network calls for a batch's reference.
        batch: samples per batch; their states at all candidates are in memory together.
        progress: show a progress bar of the samples.
        conditions: keyword arguments of the network that all noises share.
        per_sample: those with one row a noise, or one row for all; see :meth:`fewstep.Field.bind`.
        device: where the noises are put, when ``noise`` is a number; by default where the network is.

    Returns:
        The grid, the network calls made, and the grid's cost.

    Raises:
        ValueError: on wrong arguments, or a rule that is undefined on the schedule.
    """
    (coefficient,) = check_range("gits", POSITIVE, coefficient=coefficient)
    tolerances = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    bound, x0 = noises(field, noise, seed, conditions, per_sample, device)
    steps = check_steps(steps)
    task = SearchTask.make(bound, x0, steps, rule, candidates, tolerances)
    K, samples, calls = len(task.times), len(task.x0), 0
    total = task.a.new_zeros(K, K)
    with progress_bar(progress, total=samples, desc="gits", unit="sample") as bar:
        for index in task.chunks(batch):
            states, taken = task.solve(index)
            for i in range(K - 1):
                reached = task.step(states[i], task.velocity(states[i], i, index), i)
                total[i, i + 1 :] += rmse(reached, states[i + 1 :]).sum(dim=1)
            calls += taken + (K - 1) * states.shape[1]
            bar.update(states.shape[1])
    cost = (total.cpu().double() / samples).masked_fill(torch.ones(K, K).tril().bool(), math.inf)
    path, least = _best_path(steps, K, lambda k, best, source: best[:, None] + coefficient**k * cost)
    return GridSearch(tuple(task.times[i] for i in path), calls, least)


@torch.no_grad()
def optimal_steps(
    field: Field,
    steps: int,
    noise: int | Tensor | Pairs = 64,
    *,
    rule: Rule = "euler",
    candidates: Sequence[float] | None = None,
    seed: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    batch: int = 32,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
) -> GridSearch:
    """Return the grid whose steps end nearest to the reference (OSS; Pei et al. 2025, *Optimal Stepsize*).

    After ``k`` steps, every candidate time holds the state reached by the best grid of ``k`` steps, and its
    mean RMSE to the reference trajectory; the next step is taken from each of them to all later times, and
    each time keeps the nearest state. This follows the accumulated error, with one call per step, candidate
    and sample. The result need not be optimal: a state near the trajectory may still end far from it.

    The authors search for every sample separately and take medians; here one grid minimises the mean error
    of all samples. Their teacher makes 200 Euler steps; here it is the reference.

    All arguments but ``coefficient`` are those of :func:`gits`. About five states for each sample and
    candidate are in memory; ``batch`` only limits the samples per network call.

    Returns:
        The grid, the network calls made, and the mean RMSE at its end on the noises of the search.

    Raises:
        ValueError: on wrong arguments, or a rule that is undefined on the schedule.
    """
    tolerances = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    bound, x0 = noises(field, noise, seed, conditions, per_sample, device)
    steps = check_steps(steps)
    task = SearchTask.make(bound, x0, steps, rule, candidates, tolerances)
    K, samples, calls = len(task.times), len(task.x0), 0
    chunks = task.chunks(batch)
    bar = progress_bar(progress, total=len(chunks) * (1 + steps), desc="optimal steps", unit="batch")
    with bar:
        parts = []
        for index in chunks:
            part, taken = task.solve(index)
            parts.append(part)
            calls += taken
            bar.update()
        exact = torch.cat(parts, dim=1)
        del parts, part
        states, velocities = exact, torch.zeros_like(exact)  # the first step uses state 0 only

        def deviations(k: int, best: Tensor, source: Tensor | None) -> Tensor:
            """Return the mean RMSE at ``j`` after step ``k`` from ``i``, or infinity if impossible."""
            nonlocal states, calls
            if source is not None:
                states = task.step_from(source, states, velocities)
            error = task.a.new_full((K, K), math.inf)
            # k steps reach candidate k or later, and each remaining step needs another candidate.
            for i in range(k, K - steps + k) if k else (0,):
                velocities[i] = torch.cat([task.velocity(states[i, c], i, c) for c in chunks])
                reached = task.step(states[i], velocities[i], i)
                error[i, i + 1 :] = rmse(reached, exact[i + 1 :]).mean(dim=1)
                calls += samples
            bar.update(len(chunks))
            return error.cpu().double()

        path, least = _best_path(steps, K, deviations)
    return GridSearch(tuple(task.times[i] for i in path), calls, least)


def _best_path(
    steps: int, count: int, totals: Callable[[int, Tensor, Tensor | None], Tensor]
) -> tuple[list[int], float]:
    """Return the cheapest path of exactly ``steps`` steps from node 0 to node ``count - 1``, and its cost.

    ``totals(k, best, source)[i, j]`` is the cost of reaching ``j`` by step ``k`` from ``i``, where
    ``best[i]`` is the cost of reaching ``i``, from ``source[i]``.
    """
    best = torch.full((count,), math.inf, dtype=torch.float64)
    best[0] = 0
    sources: list[Tensor] = []
    for k in range(steps):
        best, source = totals(k, best, sources[-1] if sources else None).min(dim=0)
        sources.append(source)
    path = [count - 1]
    for source in reversed(sources):
        path.append(int(source[path[-1]]))
    return path[::-1], float(best[-1])
