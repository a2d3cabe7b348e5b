"""Choice among the iterates of an optimiser by held-out pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from .._progress import progress_bar
from ..metrics import mean_psnr
from ._gauss_newton import Iterate
from ._rollout import BudgetSpentError, Rollout
from ._settings import Optimizer

__all__ = ["BUDGET_SPENT", "SETTLED", "Chosen", "follow", "outdone"]

BUDGET_SPENT, SETTLED = "the budget of network calls was spent", "the training loss settled"
#: Least improvement of validation that counts, in dB.
IMPROVEMENT = 0.05
#: Validation pairs from which the extreme ones are left aside.
ENOUGH = 8


class Chosen(NamedTuple):
    """The chosen iterate, the course of the optimiser, and the first iterate on a rough network, if it is."""

    theta: Tensor
    iteration: int
    stopped: str
    curve: list[Mapping[str, float]]
    rough: int | None = None


def outdone(mse: Tensor, rival: Tensor) -> bool:
    """Return true if a rival's errors are smaller on average, given mean squares per pair.

    Of eight pairs or more those that count most for either side are left aside: a single noise that falls
    to another mode would decide.
    """
    difference = (mse.sqrt() - rival.sqrt()).sort().values
    return bool((difference[1:-1] if len(difference) >= ENOUGH else difference).mean() > 0)


def follow(
    iterates: Iterator[Iterate],
    validation: Callable[[Tensor], tuple[Tensor, Tensor]],
    rollout: Rollout,
    settings: Optimizer,
    progress: bool,
    desc: str,
) -> Chosen:
    """Run an optimiser and keep the iterate with the best validation PSNR over all of its solvers.

    ``validation`` returns mean squares at a theta, float64 of shape ``(B,)``: of the samples' errors, and of
    the criterion, which may be errors of features. The rollout counts the calls of both.

    With few validation pairs, one noise that falls to another mode dominates a mean of errors; PSNR, a mean
    of their logarithms, is robust to it. An iterate that the start outdoes is never kept.
    """
    curve: list[Mapping[str, float]] = []
    best: tuple[Tensor, int] | None = None
    highest = -math.inf
    first: Tensor | None = None
    waited, cost, stopped, rough = 0, 0, SETTLED, None
    with progress_bar(
        progress and rollout.team.main, total=settings.iterations, desc=desc, unit="iteration"
    ) as bar:
        try:
            for iteration, iterate in enumerate(iterates):
                mse, judged = validation(iterate.theta)
                error, psnr = float(mse.sqrt().mean()), float(mean_psnr(judged))
                curve.append(
                    {
                        "iteration": iteration,
                        "loss": iterate.loss,
                        "validation": error,
                        "validation_psnr": psnr,
                        "calls": rollout.calls,
                    }
                )
                waited += 1
                rough = iteration if rough is None and iterate.rough else rough
                first = judged if first is None else first
                if best is None or (psnr > highest and not outdone(judged, first)):
                    waited = 0 if best is None or psnr > highest + IMPROVEMENT else waited
                    best, highest = (iterate.theta, iteration), psnr
                bar.set_postfix(refresh=False, loss=f"{iterate.loss:.4g}", validation=f"{error:.4g}")
                bar.update()
                if waited > settings.patience:
                    stopped = "validation no longer improved"
                    break
                if iteration:
                    cost = max(cost, rollout.calls - int(curve[-2]["calls"]))
                if rollout.calls + cost > rollout.limit:  # the next iteration would exceed the limit
                    stopped = BUDGET_SPENT
                    break
            else:
                if len(curve) > settings.iterations:
                    stopped = "the iterations were used up"
        except BudgetSpentError:
            stopped = BUDGET_SPENT
    if best is None or not math.isfinite(highest + curve[best[1]]["validation"]):
        raise FloatingPointError(
            "fit: the initial solver already gives NaN on the validation pairs; sample with it to see which "
            "call of the network is to blame."
        )
    return Chosen(*best, stopped, curve, rough)
