"""Fit a solver to a field."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import classical, reference
from .._device import check_device
from .._progress import progress_bar
from ..families import Family
from ..field import Field
from ..metrics import mean_psnr
from ..pairs import Pairs, noise
from ..solver import Solver
from ._arguments import (
    ITERATIONS,
    at_least_four,
    check_arguments,
    check_budget,
    resolve_family,
    sample_shape,
    step_weights,
)
from ._dense import dense_path
from ._rivals import best_classical, velocity_table
from ._rollout import BudgetSpentError, Rollout
from .adam import Adam, EndpointObjective, PathObjective
from .gauss_newton import GaussNewton, Iterate
from .losses import ENDPOINT_LOSSES, PATH_LOSSES
from .report import FitReport

__all__ = ["Fit", "fit"]

BUDGET_SPENT = "the budget of network calls was spent"
#: Validation must improve by this many dB to count, and may pause for this many reports.
IMPROVEMENT, PATIENCE = 0.05, {"gauss_newton": 6, "adam": 50}


class Fit(NamedTuple):
    """A fitted solver and the record of the fit."""

    solver: Solver
    report: FitReport


def fit(
    field: Field,
    nfe: int,
    *,
    family: str | Family = "non_stationary",
    pairs: int | Pairs = 256,
    optimizer: str = "gauss_newton",
    loss: str = "rmse",
    init: str | Solver | None = None,
    shape: Sequence[int] | None = None,
    validation: float = 0.25,
    iterations: int | None = None,
    max_calls: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    seed: int = 0,
    batch: int = 4096,
    device: torch.device | str = "cpu",
    cache: str | Path | None = None,
    baselines: bool = True,
    progress: bool = False,
    **conditions: Any,
) -> Fit:
    """Fit a solver with ``nfe`` calls to a field; the network is only ever called, never changed.

    A quarter of the pairs is kept from training. The iterate with the best PSNR on them is returned,
    the initial solver among them, and validation that no longer improves ends the fit.

    Args:
        field: the model.
        nfe: network calls of the solver to fit.
        family: ``"non_stationary"``, ``"timesteps"``, ``"scale_time"`` (on the midpoint method, where ``nfe``
            is even), ``"scale_time_rk1"`` (on Euler's), or a :class:`~fewstep.families.Family`.
        pairs: how many reference pairs to make, at least 4, or the pairs themselves.
        optimizer: ``"gauss_newton"``, which needs no gradients of the network, or ``"adam"``.
        loss: ``"rmse"``, ``"log_mse"`` or ``"mse"`` of the endpoint; with Adam and a one-step family also
            ``"bound"``, the RMSE bound of the Bespoke paper, or ``"local"``, the local truncation error.
        init: what a non-stationary or timesteps fit starts from: the name of a classical solver, such as
            ``"ab2"`` or ``"deis3/cosine"`` (see :func:`fewstep.classical.named`), whose coefficients follow
            its times; ``"auto"``, the classical solver with the best PSNR on at most 32 training pairs; or,
            for a non-stationary fit, a solver. Adams-Bashforth 2 by default.
        shape: shape of one sample, where the field does not know it.
        validation: share of the pairs kept for validation, at least two pairs.
        iterations: most iterations; 30 for Gauss-Newton and 1500 for Adam by default.
        max_calls: stop before the fit makes more network calls than this, the reference included.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of the reference.
        seed: seed of the noises (and of Adam's minibatches). Noise ``k`` is the same for any ``pairs``.
        batch: most samples the network is given at once.
        device: where the noises are put, when ``pairs`` is a number.
        cache: folder to keep reference samples in.
        baselines: measure every classical solver with ``nfe`` calls on the validation pairs, too.
        progress: show progress bars.
        **conditions: passed to the network; tensors with one row a pair go with the pairs.

    Returns:
        The solver, with what it was fitted for and how, and a :class:`FitReport`.

    Raises:
        ValueError: on arguments that do not fit together.
    """
    check_arguments(optimizer, loss, validation, iterations)
    wanted, family = family, resolve_family(family, nfe, init, field)
    weights = step_weights(loss, family) if loss in PATH_LOSSES else None
    started = time.perf_counter()
    if isinstance(pairs, int):
        x0 = noise(at_least_four(pairs), sample_shape(field, shape), seed=seed, device=check_device(device))
        options: dict[str, Any] = {"rtol": rtol, "atol": atol, "cache": cache, "progress": progress}
        facts = {"seed": seed}
        pairs = reference.pairs(field, x0, provenance=facts, batch=min(batch, 256), **options, **conditions)
    elif conditions:
        raise ValueError(
            f"fit: the pairs given carry their own conditions, but {', '.join(conditions)} came besides; "
            "pass them to fewstep.reference.pairs, or let fit make the pairs."
        )
    if not isinstance(pairs, Pairs):
        raise ValueError(f"fit: pairs must be a number of pairs or Pairs, not {pairs!r}.")
    at_least_four(len(pairs))
    train, held_out = pairs.split(min(max(2, round(validation * len(pairs))), len(pairs) - 2))

    rollout = Rollout(field, batch)
    calls = {"reference": pairs.calls}
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = {}
    if init == "auto":
        searching = time.perf_counter()
        left = math.inf if max_calls is None else max_calls - pairs.calls - nfe * len(pairs)
        least = 2 if wanted == "timesteps" else 1
        choice = best_classical(Rollout(field, batch, left), nfe, train, steps=least)
        family = resolve_family(wanted, nfe, choice.name, field)
        calls["search"], notes = choice.calls, (choice.note,)
        seconds["search"] = time.perf_counter() - searching
    iterates: Callable[[int], Iterator[Iterate]]
    if optimizer == "gauss_newton":
        iterates = GaussNewton(rollout, family, train, ENDPOINT_LOSSES[loss])
    elif weights is None:
        endpoint = EndpointObjective(rollout, family, ENDPOINT_LOSSES[loss])
        iterates = Adam(endpoint, family.size, train, seed=seed)
    else:
        path, path_calls = dense_path(field, train, rtol=rtol, atol=atol)
        calls["reference"] += path_calls
        iterates = Adam(PathObjective(rollout, family, path, weights), family.size, train, seed=seed)
    seconds["reference"] = time.perf_counter() - started - seconds.get("search", 0.0)
    if max_calls is not None:
        rollout.limit = check_budget(max_calls, sum(calls.values()), nfe * len(pairs))

    started = time.perf_counter()
    iterations = ITERATIONS[optimizer] if iterations is None else iterations
    chosen = _best(iterates(iterations), family, rollout, held_out, iterations, PATIENCE[optimizer], progress)
    calls["fit"] = rollout.calls
    seconds["fit"] = time.perf_counter() - started

    started = time.perf_counter()
    errors = {"fitted": chosen.error, "start": chosen.curve[0]["validation"]}
    rivals = classical.baselines(nfe, field.schedule) if baselines else {}
    judge = Rollout(field, batch)
    errors |= {name: _error(solver, judge, held_out) for name, solver in rivals.items()}
    calls["baselines"] = judge.calls
    seconds["baselines"] = time.perf_counter() - started

    report = FitReport(
        nfe=nfe,
        family=family.name,
        optimizer=optimizer,
        loss=loss,
        parameters=family.size,
        pairs={"train": len(train), "validation": len(held_out)},
        errors=errors,
        calls=calls,
        seconds=seconds,
        reference_error=pairs.error,
        best_iteration=chosen.iteration,
        stopped=chosen.stopped,
        curve=tuple(chosen.curve),
        notes=(*notes, *_notes(chosen, pairs, len(held_out))),
    )
    made = {key: value for key, value in pairs.provenance.items() if key != "field"}
    record = report.to_dict()
    curve, errors_ = record.pop("curve"), record.pop("errors")
    solver = family.solver(
        chosen.theta,
        fitted_for=field.describe(),
        protocol={**record, "seed": seed, "reference": made, "curve": curve},
        scores={"validation_rmse": errors_},
    )
    return Fit(solver, report)


class _Chosen(NamedTuple):
    theta: Tensor
    psnr: float
    error: float
    iteration: int
    stopped: str
    curve: list[Mapping[str, float]]


def _best(
    iterates: Iterator[Iterate],
    family: Family,
    rollout: Rollout,
    held_out: Pairs,
    iterations: int,
    patience: int,
    progress: bool,
) -> _Chosen:
    """Follow an optimiser and keep the iterate with the best validation PSNR.

    Where few pairs validate, one noise that falls to another mode would decide a mean of errors; a
    mean of their logarithms, which PSNR is, hears the others too.
    """
    curve: list[Mapping[str, float]] = []
    best: tuple[Tensor, float, float, int] | None = None
    waited, cost, stopped = 0, 0, "the training loss settled"
    with progress_bar(
        progress, total=iterations, desc=f"fitting {family.nfe} calls", unit="iteration"
    ) as bar:
        try:
            for iteration, iterate in enumerate(iterates):
                table = family.table(iterate.theta).unroll()
                mse = rollout.squared_error(table, held_out)
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
    return _Chosen(*best, stopped, curve)


def _error(solver: Solver, rollout: Rollout, pairs: Pairs) -> float:
    table = velocity_table(solver, rollout.field)
    if table is None:  # undefined for this field: no competitor
        return math.inf
    error = float(rollout.squared_error(table, pairs).sqrt().mean())
    return error if math.isfinite(error) else math.inf


def _notes(chosen: _Chosen, pairs: Pairs, held_out: int) -> tuple[str, ...]:
    notes = []
    if chosen.iteration == 0:
        notes.append(
            "no iterate was better than the start on validation; the start is returned. Try more pairs."
        )
    if pairs.error > 0.2 * chosen.error:
        notes.append(
            f"the reference's own error ({pairs.error:.2g}) is not small against the fitted solver's; "
            "tighten rtol and atol."
        )
    if held_out < 8:
        notes.append(f"validation rests on {held_out} pairs only; more pairs make a safer choice.")
    return tuple(notes)
