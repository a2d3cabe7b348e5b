"""Time grids searched for one field, by dynamic programming over nearly exact trajectories.

A grid is a path through candidate times, and what it costs is the error of one-step solves along it. GITS
(Chen et al. 2024) adds up local errors, of steps that start on the exact trajectory; optimal steps (Pei et
al. 2025) follow the state that the steps so far have really led to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._progress import progress_bar
from ..field import Field
from ..pairs import Pairs
from ._grid_task import Rule, SearchTask, rmse

__all__ = ["GridSearch", "gits", "optimal_steps"]


class GridSearch(NamedTuple):
    """A grid that was searched for, what it took and what it costs by the search's own measure."""

    grid: tuple[float, ...]
    calls: int  #: network calls, one for each sample and evaluation, the reference's included
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
    """The grid with the least sum of local errors (GITS; Chen et al. 2024, *Trajectory Regularity*).

    The cost of a step between two candidate times is the mean over samples of the RMSE, at its end, of a
    single step that starts on the reference trajectory. Of all grids of ``steps`` steps the one is returned
    with the least ``sum_k coefficient^k cost_k``, ``k = 0, 1, ...``; it is exact for these costs.

    The paper's one-step rule is Euler in ``sigma``, which is DDIM. Here it is Euler in the network's own
    velocity, the step that fits start from, unless ``rule="ddim"`` asks for the other, which suits DDIM; on
    ``CondOT`` the two are one. A grid is best for the rule it was searched with: where few modes are narrow,
    multistep solvers can be worse on it than on a uniform one, and less so on :func:`optimal_steps`.

    Args:
        field: the model.
        steps: number of steps of the grid.
        noise: how many noises to draw, or the noises, or pairs, whose noises and conditions are taken.
        coefficient: how much more a later step counts than the one before. The paper has 1.15, for costs in
            EDM's coordinates; on the bundled flows, with costs in those of straight paths, 1 was better.
        rule: ``"euler"`` in the velocity, or ``"ddim"``.
        candidates: the times to choose from, increasing from 0 to where the grid shall end; by default 61 on
            a cosine grid. The paper has as many, of Karras' spacing.
        seed: seed of the noises that are drawn; compare on noises of another.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of it.
        max_nfe: network calls of a batch's reference after which to give up.
        batch: samples at once; their states at all candidates are in memory together.
        progress: show a progress bar of the samples.
        conditions: keyword arguments of the network that all noises share.
        per_sample: those with one row a noise, or one row for all; see :meth:`fewstep.Field.bind`.
        device: where the noises are put, when ``noise`` is a number; by default where the network is.

    Returns:
        The grid, the network calls that it took and its cost.

    Raises:
        ValueError: on arguments that do not fit, or a rule that the schedule leaves undefined.
    """
    if not coefficient > 0:
        raise ValueError(
            f"gits: coefficient must be positive, not {coefficient!r}; 1 counts all steps alike."
        )
    task = SearchTask.make(
        field,
        steps,
        noise,
        seed=seed,
        rule=rule,
        candidates=candidates,
        tolerances={"rtol": rtol, "atol": atol, "max_nfe": max_nfe},
        conditions=conditions,
        per_sample=per_sample,
        device=device,
    )
    K, samples, calls = len(task.times), len(task.x0), 0
    total = torch.zeros(K, K, dtype=torch.float64)
    with progress_bar(progress, total=samples, desc="gits", unit="sample") as bar:
        for index in task.chunks(batch):
            states, taken = task.solve(index)
            for i in range(K - 1):
                reached = task.step(states[i], task.velocity(states[i], i, index), i)
                total[i, i + 1 :] += rmse(reached, states[i + 1 :]).sum(dim=1).cpu()
            calls += taken + (K - 1) * states.shape[1]
            bar.update(states.shape[1])
    cost = (total / samples).masked_fill(torch.ones(K, K).tril().bool(), math.inf)
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
    """The grid whose steps end nearest to the reference (OSS; Pei et al. 2025, *Optimal Stepsize*).

    After ``k`` steps every candidate time holds the state that the best grid of ``k`` steps leads to, and its
    mean RMSE to the reference trajectory; the next step is taken from each of them to all later times, and
    each time keeps the nearest. This follows the error that really builds up, and takes a call for each step,
    candidate and sample. It is not exact: a state near the trajectory on the way need not end near it.

    The authors search for every sample by itself and take medians; here one grid is searched for all samples,
    whose mean error decides. Their teacher makes 200 Euler steps; here it is the reference.

    All arguments but ``coefficient`` are those of :func:`gits`. About five states for each sample and
    candidate are in memory; ``batch`` bounds only what the network sees at once.

    Returns:
        The grid, the network calls that it took, and the mean RMSE at its end on the noises of the search.

    Raises:
        ValueError: on arguments that do not fit, or a rule that the schedule leaves undefined.
    """
    task = SearchTask.make(
        field,
        steps,
        noise,
        seed=seed,
        rule=rule,
        candidates=candidates,
        tolerances={"rtol": rtol, "atol": atol, "max_nfe": max_nfe},
        conditions=conditions,
        per_sample=per_sample,
        device=device,
    )
    K, samples, calls = len(task.times), len(task.x0), 0
    chunks = list(task.chunks(batch))
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
        states, velocities = exact, torch.zeros_like(exact)  # of the states only number 0 is looked at first

        def deviations(k: int, best: Tensor, source: Tensor | None) -> Tensor:
            """Mean RMSE at ``j`` of step ``k`` from the state at ``i``; infinity where that is no step."""
            nonlocal states, calls
            if source is not None:
                states = task.step_from(source, states, velocities)
            error = torch.full((K, K), math.inf, dtype=torch.float64)
            # Candidate k is the first that k steps reach, and a candidate must be left for each step to come.
            for i in range(k, K - steps + k) if k else (0,):
                velocities[i] = torch.cat([task.velocity(states[i, c], i, c) for c in chunks])
                reached = task.step(states[i], velocities[i], i)
                error[i, i + 1 :] = rmse(reached, exact[i + 1 :]).mean(dim=1).cpu()
                calls += samples
            bar.update(len(chunks))
            return error

        path, least = _best_path(steps, K, deviations)
    return GridSearch(tuple(task.times[i] for i in path), calls, least)


def _best_path(
    steps: int, count: int, totals: Callable[[int, Tensor, Tensor | None], Tensor]
) -> tuple[list[int], float]:
    """The cheapest path of exactly ``steps`` steps from node 0 to node ``count - 1``, and its cost.

    Args:
        steps: number of steps.
        count: number of nodes.
        totals: ``totals(k, best, source)[i, j]`` is the cost of reaching ``j`` by step ``k`` from ``i``,
            where ``best[i]`` is that of reaching ``i`` before, from ``source[i]``.
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
