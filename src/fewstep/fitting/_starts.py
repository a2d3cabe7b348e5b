"""The classical solver that a fit starts from: another one than the default where that does not lead far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple

from ..families import FAMILIES
from ..families._by_name import velocity_tables
from ..metrics import mean_psnr
from ._adam import adam, objective
from ._budget import Ledger
from ._data import Data
from ._follow import Chosen
from ._gauss_newton import Iterate, gauss_newton
from ._problem import Problem
from ._question import Question
from ._rivals import candidates, ranked, ranking_cost
from ._rollout import BudgetSpentError, Rollout
from ._settings import GaussNewton
from .losses import ENDPOINT_LOSSES, LeastSquares

__all__ = ["Start", "begun", "contest", "ranking", "rival_start"]

#: Iterations between two decisions of a contest.
RUNG = 2
#: Gain over the best classical solver, in dB, below which other starts are tried.
LITTLE = 5.0
#: Most of the remaining network calls that the ranking may take.
SHARE = 1 / 3


class Start(NamedTuple):
    """A start: the question and the problem with its solver, and the iterates from there."""

    question: Question
    problem: Problem
    iterates: Iterator[Iterate]


def begun(question: Question, data: Sequence[Data], rollout: Rollout, seed: int) -> Start:
    """Return the start of a question."""
    problem = Problem.of(question, data, rollout)
    return Start(question, problem, _optimised(question, problem, seed))


def ranking(default: Start, data: Sequence[Data], ledger: Ledger) -> list[str]:
    """Return names of classical solvers, the best on training pairs first; none, with a note, if too dear."""
    question, problem, _ = default
    (nfe,), rollout = question.nfes, problem.rollout
    cost, left = ranking_cost(nfe, rollout.field), rollout.limit - rollout.calls
    if cost > SHARE * left:
        ledger.notes.append(
            f"no start was searched for, which takes {cost:,} network calls of the {left:,} that max_calls "
            "leaves; the fit started from the default."
        )
        return []
    order = ranked(rollout, nfe, data[0].train, steps=2 if question.solvers.name == "timesteps" else 1)
    return order  # empty if the network gives NaN, which the default start will say


def rival_start(
    default: Start, chosen: Chosen, order: Sequence[str], data: Sequence[Data], seed: int, ledger: Ledger
) -> Start | None:
    """Return another start if the fit from the default gained little: the one that leads furthest.

    Three are fitted for a few iterations: the best ranked, the best by another method, and the best of
    several stages.
    """
    question, problem, _ = default
    rollout, nfe = problem.rollout, question.nfes[0]
    runs: dict[str, Start] = {}
    losses: dict[str, float] = {}
    with suppress(BudgetSpentError):
        if not question.contested or _gain(chosen, problem, order[0]) >= LITTLE:
            return None
        for name in _tried(problem.start, order, nfe, question):
            with suppress(ValueError):  # that family cannot start there
                solvers = FAMILIES[question.solvers.name]((nfe,), name, rollout.field)
                runs[name] = begun(question._replace(solvers=solvers), data, rollout, seed)
        winner, iterates, losses = contest({name: run.iterates for name, run in runs.items()})
    if not losses or rollout.limit - rollout.calls < problem.calls:
        ledger.notes.append(
            f"{problem.start} gained little, and no network calls were left for fits from other starts."
        )
        return None
    tried = ", ".join(f"{each} to {loss:.4g}" for each, loss in losses.items())
    ledger.notes.append(
        f"{problem.start} gained little, so that fits from others were begun (training loss: {tried}); that "
        f"from {winner} was finished, and validation chose."
    )
    return runs[winner]._replace(iterates=iterates)


def _gain(chosen: Chosen, problem: Problem, rival: str) -> float:
    """Return the mean PSNR on validation pairs, in dB, over that of a classical solver by name."""
    rollout, (task,) = problem.rollout, problem.judged
    table = velocity_tables({rival: candidates(task.solvers.nfe, rollout.field)[rival]}, rollout.field)[rival]
    own, _ = task.errors(chosen.theta, ENDPOINT_LOSSES["rmse"])
    return float(mean_psnr(own) - mean_psnr(rollout.squared_error(table, task.pairs)))


def _tried(default: str, order: Sequence[str], nfe: int, question: Question) -> list[str]:
    """Return the best ranked, the best by another method, and the best of several stages."""
    solvers = candidates(nfe, question.sources[0].field)
    others = [name for name in order if name != default]
    found = others[:1]
    found += [name for name in others if name.split("/")[0] != found[0].split("/")[0]][:1]
    found += [name for name in others if len(solvers[name].points) <= nfe][:1]
    return list(dict.fromkeys(found))


def contest(runs: Mapping[str, Iterator[Iterate]]) -> tuple[str, Iterator[Iterate], dict[str, float]]:
    """Fit from every start for a few iterations, go on with the better half, and so on to the last.

    This is successive halving (Karnin, Koren and Somekh 2013) by the training loss. It ends early where the
    budget of network calls does.

    Returns:
        The name of the winner; its iterates, those made and those to come; and the last loss from each.
    """
    made: dict[str, list[Iterate]] = {name: [] for name in runs}
    alive, spent = list(runs), False

    def last(name: str) -> float:
        return made[name][-1].loss if made[name] else math.inf

    while len(alive) > 1:
        for name in alive:
            try:
                made[name] += islice(runs[name], RUNG + (not made[name]))
            except BudgetSpentError:
                spent = True
        alive = sorted(alive, key=last)[: 1 if spent else -(-len(alive) // 2)]
    (name,) = alive
    return name, chain(made[name], runs[name]), {each: last(each) for each in runs}


def _optimised(question: Question, problem: Problem, seed: int) -> Iterator[Iterate]:
    """Return the iterates of the optimiser."""
    settings, loss = question.optimizer, question.loss
    if isinstance(settings, GaussNewton):
        assert isinstance(loss, LeastSquares)  # checked by the question
        return gauss_newton(problem.trained, loss, settings, seed)
    (task,) = problem.trained
    family = task.solvers.own
    lowered = objective(loss, task.rollout, family, task.pairs)
    return adam(lowered, family.size, task.pairs, settings, seed)
