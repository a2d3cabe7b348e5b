"""Time grids searched for one field, by dynamic programming over nearly exact trajectories.

A grid is a path through candidate times, and what it costs is the error of one-step solves along it. GITS (Chen
et al. 2024) adds up local errors, of steps that start on the exact trajectory; optimal steps (Pei et al. 2025)
follow the state that the steps so far have really led to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import reference
from .._progress import progress_bar
from ..field import Field
from ..pairs import Pairs, take
from ..pairs import noise as draw_noise
from ..schedules import Schedule
from ._grids import check_steps, cosine, resolve

__all__ = ["GridSearch", "gits", "optimal_steps"]

#: Steps of the grid of candidates, where none is given: as many as in GITS.
CANDIDATE_STEPS = 60

Rule = Literal["euler", "ddim"]


class GridSearch(NamedTuple):
    """A grid that was searched for, what it took and what it costs by the search's own measure."""

    grid: tuple[float, ...]
    calls: int  #: network calls, one for each sample and evaluation, the reference's included
    cost: float


class _Task(NamedTuple):
    """What both searches start from."""

    field: Field
    times: Tensor  # the candidates, (K,)
    x0: Tensor
    conditions: Callable[[slice], dict[str, Any]]
    a: Tensor  # one step from candidate i to j: x_j = a[i, j] x_i + b[i, j] u_i
    b: Tensor

    def chunks(self, batch: int) -> Iterator[slice]:
        yield from (slice(i, i + batch) for i in range(0, len(self.x0), batch))

    def step(self, x: Tensor, u: Tensor, i: int) -> Tensor:
        """States at all candidates after ``i``, ``(K - 1 - i, B, ...)``, each by one step from ``i``."""
        column = (-1, *[1] * x.ndim)
        a, b = (c[i, i + 1 :].to(x).reshape(column) for c in (self.a, self.b))
        return a * x + b * u


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
    **conditions: Any,
) -> GridSearch:
    """The grid with the least sum of local errors (GITS; Chen et al. 2024, *Trajectory Regularity*, section 4).

    The cost of a step between two candidate times is the mean over samples of the RMSE, at its end, of a single
    step that starts on the reference trajectory. Of all grids of ``steps`` steps the one is returned with the
    least ``sum_k coefficient^k cost_k``, ``k = 0, 1, ...``; it is exact for these costs.

    The paper's one-step rule is Euler in ``sigma``, which is DDIM. Here it is Euler in the network's own velocity,
    the step that fits and Adams-Bashforth start from, unless ``rule="ddim"`` asks for the other, which suits DDIM
    and DPM-Solver++; on ``CondOT`` the two are one.

    Args:
        field: the model.
        steps: number of steps of the grid.
        noise: how many noises to draw, or the noises, or pairs, whose noises and conditions are taken.
        coefficient: how much more a later step counts than the one before. The paper has 1.15 for its costs in
            EDM's coordinates; in the velocity of straight paths 1 came out better on every bundled field.
        rule: ``"euler"`` in the velocity, or ``"ddim"``.
        candidates: the times to choose from, increasing from 0 to where the grid shall end; 61 on a cosine grid
            by default. The paper has as many, of Karras' spacing.
        seed: seed of the noises that are drawn; compare on noises of another.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of it.
        max_nfe: network calls of a batch's reference after which to give up.
        batch: samples at once; their states at all candidates are in memory together.
        progress: show a progress bar of the samples.
        **conditions: passed to the network; tensors with one row a noise go with the noises.

    Returns:
        The grid, the network calls that it took and its cost.

    Raises:
        ValueError: on arguments that do not fit, or a rule that the schedule leaves undefined.
    """
    if not coefficient > 0:
        raise ValueError(
            f"gits: coefficient must be positive, not {coefficient!r}; 1 counts all steps alike."
        )
    task = _task(field, steps, noise, seed, rule, candidates, conditions)
    times = task.times.tolist()
    total = torch.zeros(len(times), len(times), dtype=torch.float64)
    calls = 0
    tolerances: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    with progress_bar(progress, total=len(task.x0), desc="gits", unit="sample") as bar:
        for index in task.chunks(batch):
            given = task.conditions(index)
            states, nfe = reference.solve(field, task.x0[index], times=times, **tolerances, **given)
            for i, t in enumerate(times[:-1]):
                steps_from_i = task.step(states[i], field(states[i], t, **given), i)
                total[i, i + 1 :] += _rmse(steps_from_i, states[i + 1 :]).sum(dim=1).cpu()
            calls += (nfe + len(times) - 1) * states.shape[1]
            bar.update(states.shape[1])
    cost = (total / len(task.x0)).masked_fill(total.new_ones(total.shape).tril().bool(), math.inf)
    path, least = _best_path(
        steps, len(times), lambda k, best, sources: best[:, None] + coefficient**k * cost
    )
    return GridSearch(tuple(times[i] for i in path), calls, least)


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
    **conditions: Any,
) -> GridSearch:
    """The grid whose steps end nearest to the reference (OSS; Pei et al. 2025, *Optimal Stepsize*, algorithm 1).

    After ``k`` steps every candidate time holds the state that the best grid of ``k`` steps leads to, and its mean
    RMSE to the reference trajectory; the next step is taken from each of them to all later times, and each time
    keeps the nearest. This follows the error that really builds up, at ``steps`` times the network calls of
    :func:`gits`. It is not exact: the state nearest to the trajectory on the way need not end nearest to it.

    The authors search for every sample by itself and take medians; here one grid is searched for all samples,
    whose mean error decides. Their teacher makes 200 Euler steps; here it is the reference.

    All arguments but ``coefficient`` are those of :func:`gits`. About five states for each sample and candidate are
    in memory; ``batch`` bounds only what the network sees at once.

    Returns:
        The grid, the network calls that it took, and the mean RMSE at its end on the noises of the search.

    Raises:
        ValueError: on arguments that do not fit, or a rule that the schedule leaves undefined.
    """
    task = _task(field, steps, noise, seed, rule, candidates, conditions)
    times = task.times.tolist()
    K, samples, calls = len(times), len(task.x0), 0
    chunks = list(task.chunks(batch))
    tolerances: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    bar = progress_bar(progress, total=len(chunks) * (1 + steps), desc="optimal steps", unit="batch")

    def velocity(x: Tensor, t: float) -> Tensor:
        nonlocal calls
        calls += samples
        return torch.cat([field(x[index], t, **task.conditions(index)) for index in chunks])

    with bar:
        parts = []
        for index in chunks:
            solution = reference.solve(
                field, task.x0[index], times=times, **tolerances, **task.conditions(index)
            )
            parts.append(solution.states)
            calls += solution.nfe * solution.states.shape[1]
            bar.update()
        exact = torch.cat(parts, dim=1)
        del parts
        states, velocities = exact, torch.zeros_like(exact)  # only state 0 is looked at first

        def deviations(k: int, best: Tensor, source: Tensor | None) -> Tensor:
            """Mean RMSE at ``j`` of step ``k`` from the state at ``i``, and infinity where that is no step."""
            nonlocal states
            if source is not None:
                states = _gather(task.a, states, source) + _gather(task.b, velocities, source)
            error = torch.full((K, K), math.inf, dtype=torch.float64)
            # k steps lead to time k at least, and as many times as steps must be left.
            for i in range(k, K - steps + k) if k else (0,):
                velocities[i] = velocity(states[i], times[i])
                reached = task.step(states[i], velocities[i], i)
                error[i, i + 1 :] = _rmse(reached, exact[i + 1 :]).mean(dim=1).cpu()
            bar.update(len(chunks))
            return error

        path, least = _best_path(steps, K, deviations)
    return GridSearch(tuple(times[i] for i in path), calls, least)


def _best_path(
    steps: int, count: int, totals: Callable[[int, Tensor, Tensor | None], Tensor]
) -> tuple[list[int], float]:
    """The cheapest path of exactly ``steps`` steps from node 0 to node ``count - 1``, and its cost.

    Args:
        steps: number of steps.
        count: number of nodes.
        totals: ``totals(k, best, source)`` is the cost of reaching ``j`` by a step number ``k`` from ``i``, a matrix
            ``[i, j]``, where ``best[i]`` is that of reaching ``i`` before, from ``source[i]``.
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


def _task(
    field: Field,
    steps: int,
    noise: int | Tensor | Pairs,
    seed: int,
    rule: Rule,
    candidates: Sequence[float] | None,
    conditions: dict[str, Any],
) -> _Task:
    check_steps(steps)
    times = resolve(None, cosine(max(CANDIDATE_STEPS, 2 * steps)) if candidates is None else candidates)
    if times[0] != 0 or len(times) <= steps:
        raise ValueError(
            f"candidates: must start at 0 and be more than steps={steps}, not {len(times)} times from "
            f"{float(times[0]):g} on."
        )
    a, b = _one_step(rule, times, field.schedule)
    if isinstance(noise, Pairs):
        if conditions:
            raise ValueError(
                f"noise: these pairs have their own conditions, but {', '.join(conditions)} came besides; pass "
                "pairs.x0 with all the conditions."
            )
        return _Task(field, times, noise.x0, noise.conditions_of, a, b)
    if isinstance(noise, int):
        if field.shape is None:
            raise ValueError(
                f"noise={noise} asks for noises, but the field's shape is unknown; pass the noises themselves, "
                "or Field(..., shape=...)."
            )
        noise = draw_noise(noise, field.shape, seed=seed)
    count = len(noise)
    return _Task(field, times, noise, lambda index: take(conditions, index, count), a, b)


def _one_step(rule: Rule, times: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """``a, b`` with ``x_j = a[i, j] x_i + b[i, j] u_i`` for one step between any two of the times."""
    if rule == "euler":
        h = times - times[:, None]
        return torch.ones_like(h), h
    if rule != "ddim":
        raise ValueError(f"rule: must be 'euler' or 'ddim', not {rule!r}.")
    # The data and the noise that x_i and u_i make up, mixed anew as alpha_j data + sigma_j noise.
    alpha, sigma, d_alpha, d_sigma = schedule(times)
    start = tuple(c[:-1, None] for c in (alpha, sigma, d_alpha, d_sigma))
    determinant = start[1] * start[2] - start[3] * start[0]
    a = (start[2] * sigma - start[3] * alpha) / determinant
    b = (start[1] * alpha - start[0] * sigma) / determinant
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError(
            f"rule: 'ddim' needs the data and the noise that a velocity stands for, but under {schedule!r} the "
            "velocity leaves them open at some of the candidates; pass rule='euler'."
        )
    return a, b


def _gather(coefficients: Tensor, values: Tensor, source: Tensor) -> Tensor:
    """``coefficients[source[j], j] * values[source[j]]`` for all ``j``."""
    c = coefficients[source, torch.arange(len(source))].to(values)
    return c.reshape(-1, *[1] * (values.ndim - 1)) * values[source.to(values.device)]


def _rmse(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square of the difference over the dimensions of a sample: ``(n, B, ...)`` to ``(n, B)``."""
    return (x - y).flatten(2).square().mean(dim=2).sqrt()
