"""Following an optimiser, and choosing among its iterates on pairs it did not see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._progress import progress_bar
from ..families import Family
from ..metrics import mean_psnr
from ..pairs import Pairs
from ._rollout import BudgetSpentError, Rollout
from .gauss_newton import Iterate

__all__ = ["BUDGET_SPENT", "PATIENCE", "Chosen", "follow"]

BUDGET_SPENT = "the budget of network calls was spent"
#: Validation must improve by this many dB to count, and may pause for this many reports.
IMPROVEMENT, PATIENCE = 0.05, {"gauss_newton": 8, "adam": 50}


class Chosen(NamedTuple):
    """The iterate kept, its validation PSNR and RMSE, and how the optimiser went."""

    theta: Tensor
    psnr: float
    error: float
    iteration: int
    stopped: str
    curve: list[Mapping[str, float]]


def follow(
    iterates: Iterator[Iterate],
    families: Sequence[Family],
    rollout: Rollout,
    held_out: Pairs,
    iterations: int,
    patience: int,
    progress: bool,
) -> Chosen:
    """Follow an optimiser and keep the iterate with the best validation PSNR, over all of its solvers.

    Where few pairs validate, one noise that falls to another mode would decide a mean of errors; a
    mean of their logarithms, which PSNR is, hears the others too.
    """
    curve: list[Mapping[str, float]] = []
    best: tuple[Tensor, float, float, int] | None = None
    waited, cost, stopped = 0, 0, "the training loss settled"
    desc = f"fitting {', '.join(str(family.nfe) for family in families)} calls"
    with progress_bar(progress and rollout.team.main, total=iterations, desc=desc, unit="iteration") as bar:
        try:
            for iteration, iterate in enumerate(iterates):
                tables = [family.table(iterate.theta).unroll() for family in families]
                mse = torch.cat([rollout.squared_error(table, held_out) for table in tables])
                error, psnr = float(mse.sqrt().mean()), float(mean_psnr(mse))
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
                if best is None or psnr > best[1]:
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
    if best is None or not math.isfinite(best[2]):
        raise FloatingPointError(
            "fit: the initial solver already gives NaN on the validation pairs; sample with it to see which "
            "call of the network is to blame."
        )
    return Chosen(*best, stopped, curve)
