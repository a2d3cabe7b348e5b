"""The classical solver that a fit starts from, chosen by short fits from several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple

from ..families import FAMILIES
from ._adam import adam, objective
from ._budget import Ledger
from ._data import Data
from ._gauss_newton import Iterate, gauss_newton
from ._problem import Problem
from ._question import Question
from ._rivals import candidates, ranked, ranking_cost
from ._rollout import BudgetSpentError, Rollout
from ._settings import GaussNewton
from .losses import LeastSquares

__all__ = ["Start", "chosen_starts", "contest", "optimised"]

#: Iterations between two decisions of a contest.
RUNG = 2
#: What the loss from the first start counts, and the share of the least loss at any start below which it must
#: have fallen for that. Without, mixtures lost 1.1x on average over 30 studies, and up to 16x.
FAVOUR, HARDLY = 0.5, 0.9
#: Most of the remaining network calls that the ranking, and then a contest, may take.
SHARE = 1 / 3


class Start(NamedTuple):
    """A start: the question and the problem with its solver, and the iterates from there."""

    question: Question
    problem: Problem
    iterates: Iterator[Iterate]


def chosen_starts(
    default: Start, data: Sequence[Data], seed: int, ledger: Ledger
) -> tuple[list[Start], list[str]]:
    """Return the starts to fit from, and the names of classical solvers, the best on training pairs first.

    The winner of a contest comes first; if that is not the default, it is second, for validation to choose.
    """
    question, problem, _ = default
    (nfe,), field, rollout = question.nfes, question.sources[0].field, problem.rollout
    cost, left = ranking_cost(nfe, field), rollout.limit - rollout.calls
    if cost > SHARE * left:
        ledger.notes.append(
            f"no start was searched for, which takes {cost:,} network calls of the {left:,} that max_calls "
            "leaves; the fit started from the default."
        )
        return [default], []
    order = ranked(rollout, nfe, data[0].train, steps=2 if question.solvers.name == "timesteps" else 1)
    if not order:  # the network gives NaN, which the default start will say
        return [default], []
    names = _tried(problem.start, order, nfe, question) if question.contested else order[:1]
    runs: dict[str, Start] = {}
    for name in names:
        if name == problem.start:
            runs[name] = default
            continue
        with suppress(ValueError):  # that family cannot start there
            asked = question._replace(solvers=FAMILIES[question.solvers.name]((nfe,), name, field))
            own = Problem.of(asked, data, rollout)
            runs[name] = Start(asked, own, optimised(asked, own, seed))
    iterates = {name: run.iterates for name, run in runs.items()}
    winner, iterates, losses = contest(iterates, rollout, logarithmic=question.loss.name == "log_mse")
    tried = ", ".join(f"{each} to {loss:.4g}" for each, loss in losses.items())
    ledger.notes.append(
        f"{winner} is the start"
        + (f" that a few iterations led furthest from (training loss: {tried})" if len(losses) > 1 else "")
        + f"; {order[0]} is the best of the classical solvers on training pairs."
    )
    last = [winner, *([problem.start] if problem.start in runs and problem.start != winner else [])]
    return [runs[name]._replace(iterates=iterates[name]) for name in last], order


def optimised(question: Question, problem: Problem, seed: int) -> Iterator[Iterate]:
    """Return the iterates of the optimiser."""
    settings, loss = question.optimizer, question.loss
    if isinstance(settings, GaussNewton):
        assert isinstance(loss, LeastSquares)  # checked by the question
        return gauss_newton(problem.trained, loss, settings, seed)
    (task,) = problem.trained
    family = task.solvers.own
    lowered = objective(loss, task.rollout, family, task.pairs)
    return adam(lowered, family.size, task.pairs, settings, seed)


def _tried(default: str, order: list[str], nfe: int, question: Question) -> list[str]:
    """Return the default, the best ranked, the best by another method, and the best of several stages."""
    solvers = candidates(nfe, question.sources[0].field)
    found = [default, *order[:1]]
    methods = {name.split("/")[0] for name in found}
    found += [name for name in order if name.split("/")[0] not in methods][:1]
    found += [name for name in order if len(solvers[name].points) <= nfe][:1]
    return list(dict.fromkeys(found))


def contest(
    runs: Mapping[str, Iterator[Iterate]], rollout: Rollout, *, logarithmic: bool = False
) -> tuple[str, dict[str, Iterator[Iterate]], dict[str, float]]:
    """Fit from every start for a few iterations, go on with the better half, and so on to the last.

    This is successive halving (Karnin, Koren and Somekh 2013) by the training loss, in favour of the first
    start, from which most fits go farthest in the end: its loss counts half, unless it has hardly fallen
    below the least loss of any start. The contest ends early where it has taken its share of the network
    calls that the rollout has left.

    Args:
        runs: iterates from each start.
        rollout: counts the network calls.
        logarithmic: whether losses are logarithms of mean squares.

    Returns:
        The name of the winner; and all iterates, those made and those to come, and the last loss from each.
    """
    enough = rollout.calls + SHARE * (rollout.limit - rollout.calls)
    made: dict[str, list[Iterate]] = {name: [] for name in runs}
    first, *_ = alive = list(runs)

    def size(name: str, at: int = -1) -> float:
        if not made[name]:
            return math.inf
        return math.exp(made[name][at].loss / 2) if logarithmic else made[name][at].loss

    def handicapped(name: str) -> float:
        fallen = size(first) < HARDLY * min(size(each, 0) for each in runs)
        return size(name) * (FAVOUR if name == first and fallen else 1)

    while len(alive) > 1:
        for name in alive:
            if rollout.calls > enough:
                break
            try:
                made[name] += islice(runs[name], RUNG + (not made[name]))
            except BudgetSpentError:
                break
        spent = rollout.calls > enough
        alive = sorted(alive, key=handicapped)[: 1 if spent else -(-len(alive) // 2)]
    (name,) = alive
    every: dict[str, Iterator[Iterate]] = {each: chain(made[each], runs[each]) for each in runs}
    return name, every, {each: size(each) for each in runs}
