"""Fit several solvers that share a theta, and judge them: what curves and guided fits have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._arguments import ITERATIONS, check_budget
from ._follow import PATIENCE, follow
from .joint import JointGaussNewton, Task
from .losses import ENDPOINT_LOSSES

__all__ = ["Shared", "fit_shared"]

_OPTIMIZER = "gauss_newton"


class Shared(NamedTuple):
    """The theta of a fit, and the entries of its report that do not depend on what was fitted.

    ``errors`` has one entry a judged task: its place, and ``fitted`` and ``start``, both validation RMSE.
    """

    theta: Tensor
    errors: list[Mapping[str, float]]
    record: dict[str, Any]


def fit_shared(
    fitted: Sequence[Task],
    judged: Sequence[Task],
    places: Sequence[Mapping[str, float]],
    reference: Mapping[str, float],
    *,
    iterations: int | None,
    max_calls: int | None,
    progress: bool,
    desc: str,
) -> Shared:
    """Gauss-Newton on ``fitted``, keeping the iterate with the best mean PSNR over ``judged``.

    Args:
        fitted: the tasks, with the pairs to train on; their rollouts count together.
        judged: tasks with held-out pairs, on the same rollouts.
        places: number of calls and guidance scale of each of these.
        reference: ``calls`` and ``seconds`` of the reference, so far.
        iterations: most iterations, 40 by default.
        max_calls: most network calls, with those of the reference.
        progress: show a progress bar.
        desc: what it is to say.
    """
    started = time.perf_counter()
    rollout = fitted[0].rollout
    if max_calls is not None:
        start = sum(task.solvers.nfe * len(task.pairs) for task in (*fitted, *judged))
        rollout.limit = check_budget(max_calls, int(reference["calls"]), start)
    iterations = ITERATIONS[_OPTIMIZER] if iterations is None else iterations
    iterates = JointGaussNewton(fitted, ENDPOINT_LOSSES["rmse"])(iterations)

    def validation(theta: Tensor) -> tuple[Tensor, Tensor]:
        mse = torch.cat([task.squared_error(theta) for task in judged])
        return mse, mse

    chosen = follow(iterates, validation, rollout, iterations, PATIENCE[_OPTIMIZER], progress, desc)
    calls = {"reference": int(reference["calls"]), "fit": rollout.calls}
    seconds = {"reference": reference["seconds"], "fit": time.perf_counter() - started}

    started, rollout.limit = time.perf_counter(), float("inf")
    zero = torch.zeros_like(chosen.theta)
    errors: list[Mapping[str, float]] = [
        {
            **place,
            "fitted": float(task.squared_error(chosen.theta).sqrt().mean()),
            "start": float(task.squared_error(zero).sqrt().mean()),
        }
        for task, place in zip(judged, places, strict=True)
    ]
    calls["errors"] = rollout.calls - calls["fit"]
    seconds["errors"] = time.perf_counter() - started
    record = {
        "parameters": len(chosen.theta),
        "pairs": {"train": len(fitted[0].pairs), "validation": len(judged[0].pairs)},
        "calls": calls,
        "seconds": seconds,
        "best_iteration": chosen.iteration,
        "stopped": chosen.stopped,
        "curve": tuple(chosen.curve),
    }
    return Shared(chosen.theta, errors, record)
