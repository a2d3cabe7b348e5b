"""Budget of network calls: the number of pairs to spend it on, and notes on its size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .. import classical
from ..field import Field
from ..pairs import Pairs
from ._follow import BUDGET_SPENT, Chosen
from ._gauss_newton import Linearised
from ._pairs import VALIDATION, joined
from ._rivals import PAIRS as SEARCHED
from ._rollout import Rollout
from ._team import BudgetSpentError

__all__ = [
    "PAIRS",
    "BudgetError",
    "Ledger",
    "affordable_pairs",
    "budget_notes",
    "check_budget",
    "planned_pairs",
    "search_cost",
]

#: Number of pairs without a budget, and the fewest with one.
PAIRS, FEWEST = 256, 16
#: Gauss-Newton iterations that a budget should allow: the best iterate was earlier in most studies.
ITERATIONS = 20
#: Trial steps per iteration, on average.
TRIALS = 1.3
#: Share of a budget for pairs, if iterations take minibatches.
SHARE = 0.25
#: Last iterates of a fit that are judged, and the gain in dB over them above which it is unfinished.
LATELY, GAINING = 3, 0.3
#: Validation RMSE over training RMSE beyond which more pairs would help.
GAP = 1.5


class BudgetError(ValueError):
    """The budget of network calls is too small to start."""


class Ledger:
    """Network calls and seconds of a fit by their purpose, and notes.

    Args:
        max_calls: most network calls, without those for the errors of the report; unlimited by default.
    """

    def __init__(self, max_calls: int | None = None) -> None:
        self.max_calls = max_calls
        self.calls: dict[str, int] = {"reference": 0}
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @property
    def spent(self) -> int:
        """Network calls so far, without those for the report only."""
        return sum(calls for purpose, calls in self.calls.items() if purpose != "errors")

    @property
    def left(self) -> float:
        """Remaining network calls."""
        return math.inf if self.max_calls is None else self.max_calls - self.spent

    @contextmanager
    def timed(self, purpose: str) -> Iterator[None]:
        """Count the seconds of a block."""
        started = time.perf_counter()
        yield
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + time.perf_counter() - started


def check_budget(ledger: Ledger, start: int) -> float:
    """Return the calls left to the optimiser; raise if they do not cover the initial solvers."""
    if start > ledger.left:
        raise BudgetError(
            f"fit: max_calls={ledger.max_calls} is not enough: the reference took {ledger.spent} network "
            f"calls and the start takes {start} more; raise max_calls well above {ledger.spent + start}, "
            "or fit on fewer pairs."
        )
    return ledger.left


def planned_pairs(
    make: Callable[..., Pairs],
    fitter: Callable[[Rollout, Pairs], Linearised] | None,
    rollout: Rollout,
    nfe: int,
    searched: int,
) -> Pairs:
    """Make a few pairs, measure the cost of pairs and iterations, and make as many more as a budget allows.

    Args:
        make: makes a number of pairs, from noise ``start`` on.
        fitter: Gauss-Newton on some pairs, or ``None`` if iterations take minibatches.
        rollout: the field, with the budget as its limit; it counts the calls of the measurement.
        nfe: network calls of the solver.
        searched: most network calls for choosing a start.
    """
    first, budget = make(FEWEST), rollout.limit
    rollout.limit = budget - first.calls
    try:
        linearisation = None if fitter is None else linearisation_cost(fitter(rollout, first), first)
    except BudgetSpentError:
        return first
    left = budget - rollout.calls - searched
    more = affordable_pairs(left, nfe, first.calls / len(first), linearisation) - len(first)
    return joined(first, make(more, start=len(first))) if more else first


def affordable_pairs(left: float, nfe: int, reference: float, linearisation: float | None) -> int:
    """Return the number of pairs that leaves a budget for twenty Gauss-Newton iterations on them.

    Args:
        left: remaining network calls, before any pair is made.
        nfe: network calls of the solver.
        reference: network calls of the reference per pair.
        linearisation: network calls of a Jacobian per pair; ``None`` if iterations take minibatches, whose
            cost does not grow with the pairs.

    Returns:
        From 16 to 256 pairs.
    """
    if linearisation is None:
        count = SHARE * left / reference
    else:
        training = (1 - VALIDATION) * (linearisation + TRIALS * nfe)
        count = left / (reference + ITERATIONS * (training + VALIDATION * nfe))
    return max(FEWEST, min(PAIRS, math.floor(count)))


def linearisation_cost(fitter: Linearised, pairs: Pairs) -> float:
    """Measure the network calls per pair of an iteration's Jacobian, at the start, on a few pairs."""
    rollout, theta = fitter.rollout, torch.zeros(fitter.family.size, dtype=torch.float64)
    few = rollout.team.own(pairs)[:4]
    linearise, _ = fitter.columns.at(theta, few)
    before = rollout.calls  # leave out measurements that are made once

    def work() -> Tensor:
        linearise(few)
        return torch.tensor([len(few)])

    count = int(torch.cat(rollout.together(work)).sum())
    fresh = (rollout.calls - before) / count
    return (fresh + fitter.reuse * fitter.family.nfe) / (1 + fitter.reuse)


def search_cost(nfe: int, field: Field) -> int:
    """Return the most network calls for choosing a start."""
    return SEARCHED * nfe * len(classical.baselines(nfe, field.schedule, list(classical.GRIDS)))


def budget_notes(ledger: Ledger, chosen: Chosen, loss: str) -> tuple[str, ...]:
    """Return notes on whether the budget was enough, and what more calls or pairs would bring.

    Args:
        ledger: the budget and the calls spent.
        chosen: the iterates.
        loss: name of the training loss.
    """
    max_calls, spent, curve, stopped = ledger.max_calls, ledger.spent, chosen.curve, chosen.stopped
    if max_calls is None:
        return ()
    quality = [row["validation_psnr"] for row in curve]
    before = max(quality[: max(1, len(quality) - LATELY)])
    gain = max(quality) - before
    if stopped != BUDGET_SPENT:
        word = f"max_calls={max_calls:,} sufficed: {stopped} with {max_calls - spent:,} calls left."
    elif len(curve) <= LATELY or gain > GAINING:
        word = (
            f"max_calls={max_calls:,} was spent while validation still improved ({gain:.1f} dB over the last "
            f"{min(LATELY, len(curve) - 1)} iterations); more calls would help."
        )
    else:
        word = (
            f"max_calls={max_calls:,} was spent, and sufficed: validation had hardly improved of late "
            f"({gain:.1f} dB over the last {LATELY} iterations)."
        )
    row = curve[chosen.iteration]
    if loss == "rmse" and row["validation"] > GAP * row["loss"]:
        ratio = row["validation"] / max(row["loss"], 1e-12)
        word += f" Validation RMSE is {ratio:.1f} times that of training, so that more pairs would help."
    return (word,)
