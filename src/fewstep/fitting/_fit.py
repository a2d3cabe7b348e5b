"""Fit a solver to a field."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from .. import classical
from ..families import Family
from ..field import Field
from ..pairs import Pairs
from ..solver import Solver
from ._arguments import (
    ITERATIONS,
    check_arguments,
    check_budget,
    check_gauss_newton,
    check_processes,
    resolve_family,
    resolve_loss,
)
from ._budget import PAIRS, budget_notes, planned_pairs, search_cost
from ._follow import PATIENCE, Chosen, follow, validated
from ._objective import check_loss, objective
from ._reference_pairs import held_back, reference_pairs
from ._rivals import best_classical, velocity_table
from ._rollout import Rollout
from .adam import Adam
from .gauss_newton import GaussNewton, Iterate
from .losses import ENDPOINT_LOSSES, Features, LeastSquares, Loss
from .report import FitReport

__all__ = ["Fit", "fit"]


class Fit(NamedTuple):
    """A fitted solver and the record of the fit."""

    solver: Solver
    report: FitReport


def fit(
    field: Field,
    nfe: int,
    *,
    family: str | Family = "non_stationary",
    pairs: int | Pairs | None = None,
    optimizer: str = "gauss_newton",
    loss: str | Loss = "rmse",
    jacobian: Literal["directions", "differences", "jvp"] | None = None,
    minibatch: int | None = None,
    init: str | Solver | None = None,
    shape: Sequence[int] | None = None,
    validation: float = 0.25,
    iterations: int | None = None,
    max_calls: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    seed: int = 0,
    batch: int = 4096,
    device: torch.device | str | None = None,
    cache: str | Path | None = None,
    baselines: bool = True,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> Fit:
    """Fit a solver with ``nfe`` calls to a field; the network is only ever called, never changed.

    A quarter of the pairs is kept from training. The iterate with the best PSNR on them (of their features,
    where the loss is of those) is returned, the initial solver among them, and validation that no longer
    improves ends the fit.

    Args:
        field: the model.
        nfe: network calls of the solver to fit.
        family: ``"non_stationary"``, ``"timesteps"``, ``"scale_time"`` (on the midpoint method, where ``nfe``
            is even, or another by ``init``), ``"scale_time_rk1"`` (on Euler's), or a
            :class:`~fewstep.families.Family`, such as one with offsets or with numbers a channel.
        pairs: how many reference pairs to make, at least 4, or the pairs themselves. By default 256; with
            ``max_calls`` from 16 to 256, as many as leave room for twenty iterations on them, unless
            ``per_sample`` says how many there are.
        optimizer: ``"gauss_newton"``, which needs no gradients of the network, or ``"adam"``.
        loss: ``"rmse"``, ``"log_mse"``, ``"mse"`` or ``"pseudo_huber"`` of the endpoint; ``"nodes"``, the
            RMSE of every trajectory point; :class:`~fewstep.fitting.Features` of the endpoint; with Adam also
            ``"soft"``, the endpoint's from the best noise near by, and for a one-step family ``"bound"``, the
            RMSE bound of the Bespoke paper, or ``"local"``, the local truncation error. Losses with
            arguments of their own are in :mod:`fewstep.fitting`.
        jacobian: how Gauss-Newton gets it: by differences along the few ``"directions"`` that matter at
            each call, the default but for features; ``"differences"`` of perturbed rollouts, one or two a
            parameter, and the default for features, which are then only evaluated; both from a network that
            is only called. Or ``"jvp"``, its forward-mode derivatives where it has them, exact in half
            precision too and slower.
        minibatch: training pairs that Gauss-Newton takes at a step; all of them by default. Saves calls
            with hundreds of pairs, and costs accuracy with tens.
        init: what a non-stationary or timesteps fit starts from: the name of a classical solver, such as
            ``"ab2"`` or ``"deis3/cosine"`` (see :func:`fewstep.classical.named`), whose coefficients follow
            its times, and in a non-stationary fit may be told others; ``"auto"``, the classical solver with
            the best PSNR on at most 32 training pairs; or, for a non-stationary fit, a solver with as many
            calls or fewer, classical or fitted, of any family. DEIS of order 3 on the cosine grid by default,
            or where that has no velocities, Adams-Bashforth 2. For a scale-time fit, the name of its base: a
            Runge-Kutta method, or ``"ab2"``, ``"ab3"``, ``"ab4"``.
        shape: shape of one sample, where the field does not know it.
        validation: share of the pairs kept for validation, at least two pairs.
        iterations: most iterations; 40 for Gauss-Newton and 1500 for Adam by default.
        max_calls: stop before the fit makes more network calls than this, the reference included.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of the reference.
        seed: seed of the noises (and of Adam's minibatches). Noise ``k`` is the same for any ``pairs``.
        batch: most samples the network is given at once.
        device: where the noises are put, when ``pairs`` is a number; by default where the network is.
        cache: folder to keep reference samples in.
        baselines: measure every classical solver with ``nfe`` calls on the validation pairs, too.
        progress: show progress bars.
        conditions: keyword arguments of the network that all pairs share.
        per_sample: those with one row a pair, or one row for all; see :meth:`fewstep.Field.bind`.

    Returns:
        The solver, with what it was fitted for and how, and a :class:`FitReport`.

    Raises:
        ValueError: on arguments that do not fit together.
    """
    check_arguments(optimizer, validation, iterations)
    loss = resolve_loss(loss, optimizer)
    check_gauss_newton(optimizer, jacobian, minibatch)
    check_processes(optimizer)
    wanted, family = family, resolve_family(family, nfe, init, field)
    check_loss(loss, family)
    started = time.perf_counter()
    make = partial(
        reference_pairs,
        field,
        shape=shape,
        seed=seed,
        batch=batch,
        device=device,
        conditions=conditions,
        per_sample=per_sample,
        rtol=rtol,
        atol=atol,
        cache=cache,
        progress=progress,
    )
    way = jacobian or ("differences" if isinstance(loss, Features) else "directions")
    gauss_newton: dict[str, Any] = {"jacobian": way, "minibatch": minibatch, "seed": seed}
    planning = Rollout(field, batch, math.inf if max_calls is None else max_calls)
    if pairs is None and max_calls is not None and (per_sample is None or not len(per_sample)):
        whole, begun = optimizer == "gauss_newton" and minibatch is None, family

        def fitter(rollout: Rollout, first: Pairs) -> GaussNewton:  # calls are the same for every loss
            return GaussNewton(rollout, begun, first, ENDPOINT_LOSSES["rmse"], **gauss_newton)

        searched = search_cost(nfe, field) if init == "auto" else 0
        pairs = planned_pairs(make, fitter if whole else None, planning, nfe, searched, validation)
    pairs = make(PAIRS if pairs is None else pairs)
    train, held_out = held_back(pairs, validation)

    rollout = Rollout(field, batch)
    calls = {"reference": pairs.calls}
    if planning.calls:
        calls["plan"] = planning.calls
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = {}
    if init == "auto":
        searching = time.perf_counter()
        left = math.inf if max_calls is None else max_calls - sum(calls.values()) - nfe * len(pairs)
        least = 2 if wanted == "timesteps" else 1
        choice = best_classical(Rollout(field, batch, left), nfe, train, steps=least)
        family = resolve_family(wanted, nfe, choice.name, field)
        calls["search"], notes = choice.calls, (choice.note,)
        seconds["search"] = time.perf_counter() - searching
    mapped = _features_read(loss)
    train, more = loss.prepared(train, field, rtol=rtol, atol=atol)
    held_out, _ = loss.judge.prepared(held_out, field, rtol=rtol, atol=atol)
    calls["reference"] += more
    iterates: Callable[[int], Iterator[Iterate]]
    if optimizer == "gauss_newton" and isinstance(loss, LeastSquares):
        iterates = GaussNewton(rollout, family, train, loss, **gauss_newton)
    else:
        iterates = Adam(objective(loss, rollout, family, train), family.size, train, seed=seed)
    seconds["reference"] = time.perf_counter() - started - seconds.get("search", 0.0)
    if max_calls is not None:
        rollout.limit = check_budget(max_calls, sum(calls.values()), nfe * len(pairs))

    started = time.perf_counter()
    iterations = ITERATIONS[optimizer] if iterations is None else iterations
    patience = PATIENCE[optimizer]
    chosen = follow(
        iterates(iterations),
        lambda theta: validated(rollout, family, theta, held_out, loss.judge),
        rollout,
        iterations,
        patience,
        progress,
        f"fitting {nfe} calls",
    )
    calls["fit"] = rollout.calls
    seconds["fit"] = time.perf_counter() - started

    started = time.perf_counter()
    errors = {"fitted": chosen.error, "start": chosen.curve[0]["validation"]}
    rivals = classical.baselines(nfe, field.schedule) if baselines else {}
    judge = Rollout(field, batch)
    errors |= {name: _error(solver, judge, held_out) for name, solver in rivals.items()}
    calls["baselines"] = judge.calls
    seconds["baselines"] = time.perf_counter() - started

    if max_calls is not None:
        spent = sum(calls.values()) - calls["baselines"]
        notes += budget_notes(max_calls, spent, chosen.stopped, chosen.curve, chosen.iteration, loss.name)
    report = FitReport(
        nfe=nfe,
        family=family.name,
        optimizer=optimizer,
        loss=loss.name,
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
        feature_calls=_features_read(loss) - mapped,
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


def _features_read(loss: Loss) -> int:
    """Samples that the feature map of a loss was given so far."""
    return loss.judge.calls if isinstance(loss.judge, Features) else 0


def _error(solver: Solver, rollout: Rollout, pairs: Pairs) -> float:
    table = velocity_table(solver, rollout.field)
    if table is None:  # undefined for this field: no competitor
        return math.inf
    error = float(rollout.squared_error(table, pairs).sqrt().mean())
    return error if math.isfinite(error) else math.inf


def _notes(chosen: Chosen, pairs: Pairs, held_out: int) -> tuple[str, ...]:
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
