"""Following an optimiser, and choosing among its iterates on pairs it did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .._progress import progress_bar
from ..families import Family
from ..metrics import mean_psnr, per_sample_mse
from ..pairs import Pairs
from ._rollout import BudgetSpentError, Rollout, chunks
from .gauss_newton import Iterate
from .losses import LeastSquares

__all__ = ["BUDGET_SPENT", "PATIENCE", "Chosen", "follow", "validated"]

BUDGET_SPENT = "the budget of network calls was spent"
#: Validation must improve by this many dB to count, and may pause for this many reports.
IMPROVEMENT, PATIENCE = 0.05, {"gauss_newton": 8, "adam": 50}


class Chosen(NamedTuple):
    """The iterate kept, its validation PSNR (as it was chosen by) and RMSE, and how the optimiser went."""

    theta: Tensor
    psnr: float
    error: float
    iteration: int
    stopped: str
    curve: list[Mapping[str, float]]


def follow(
    iterates: Iterator[Iterate],
    validation: Callable[[Tensor], tuple[Tensor, Tensor]],
    rollout: Rollout,
    iterations: int,
    patience: int,
    progress: bool,
    desc: str,
) -> Chosen:
    """Follow an optimiser and keep the iterate with the best validation PSNR, over all of its solvers.

    Args:
        iterates: the optimiser.
        validation: mean squares at a theta, float64 of shape ``(B,)``: of the samples' errors, and of what is
            to be judged by, which may be their features.
        rollout: what counts the calls of both.
        iterations: how many iterates there may be after the start.
        patience: how many may pass without an improvement.
        progress: show a progress bar.
        desc: what it is to say.

    Where few pairs validate, one noise that falls to another mode would decide a mean of errors; a
    mean of their logarithms, which PSNR is, hears the others too. No iterate is kept whose mean is worse than
    that of the start.
    """
    curve: list[Mapping[str, float]] = []
    best: tuple[Tensor, float, float, int] | None = None
    waited, cost, most, stopped = 0, 0, math.inf, "the training loss settled"
    with progress_bar(progress and rollout.team.main, total=iterations, desc=desc, unit="iteration") as bar:
        try:
            for iteration, iterate in enumerate(iterates):
                mse, judged = validation(iterate.theta)
                error, psnr = float(mse.sqrt().mean()), float(mean_psnr(judged))
                judged_error = float(judged.sqrt().mean())
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
                if best is None:
                    most = judged_error
                if best is None or (psnr > best[1] and judged_error <= most):
                    waited = 0 if best is None or psnr > best[1] + IMPROVEMENT else waited
                    best = (iterate.theta, psnr, error, iteration)
                bar.set_postfix(refresh=False, loss=f"{iterate.loss:.4g}", validation=f"{error:.4g}")
                bar.update()
                if waited > patience:
                    stopped = "validation no longer improved"
                    break
                if iteration:
                    cost = max(cost, rollout.calls - int(curve[-2]["calls"]))
                if rollout.calls + cost > rollout.limit:  # the next one could not be finished
                    stopped = BUDGET_SPENT
                    break
            else:
                if len(curve) > iterations:
                    stopped = "the iterations were used up"
        except BudgetSpentError:
            stopped = BUDGET_SPENT
    if best is None or not math.isfinite(best[1] + best[2]):
        raise FloatingPointError(
            "fit: the initial solver already gives NaN on the validation pairs; sample with it to see which "
            "call of the network is to blame."
        )
    return Chosen(*best, stopped, curve)


@torch.no_grad()
def validated(
    rollout: Rollout, family: Family, theta: Tensor, pairs: Pairs, judge: LeastSquares
) -> tuple[Tensor, Tensor]:
    """Mean squares, float64 of shape ``(B,)``, of the samples' errors and of what ``judge`` compares."""
    table, times = family.table(theta).unroll(), judge.times(family, theta)

    def work() -> Tensor:
        found = [torch.zeros(0, 2, dtype=torch.float64, device=pairs.x0.device)]
        for part in chunks(rollout.team.own(pairs), rollout.max_batch):
            end = rollout.endpoint(table, part)
            found.append(torch.stack([per_sample_mse(end, part.x1), judge.squared(end, times, part)], dim=1))
        return torch.cat(found)

    errors, judged = torch.cat(rollout.together(work)).T
    return errors, judged
