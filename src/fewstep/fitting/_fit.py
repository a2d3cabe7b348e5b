"""Fits of a solver, or several with shared parameters, to one or several fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import classical
from ..families import Family, Solvers
from ..pairs import Pairs
from ..solver import Solver
from ._budget import Ledger, budget_notes, check_budget
from ._data import Data, given_pairs, prepared, reference_error, reference_notes
from ._follow import SETTLED, Chosen, follow
from ._gauss_newton import Iterate
from ._pairs import Maker
from ._problem import Problem
from ._question import Fields, Question, ask
from ._report import FitReport
from ._result import Fit
from ._rollout import Rollout
from ._settings import Optimizer, Reference
from ._starts import Start, chosen_starts, optimised
from .losses import EndpointLoss, Features, Loss

__all__ = ["fit", "run"]

#: Best ranked solvers on any grid that are measured on validation too.
NAMED = 4


def fit(
    field: Fields,
    nfe: int | tuple[int, ...] = 8,
    *,
    guidance: float | tuple[float, ...] | None = None,
    family: str | Solvers | None = None,
    init: str | Solver | None = None,
    loss: str | Loss = "rmse",
    optimizer: str | Optimizer = "gauss_newton",
    pairs: int | Pairs | Mapping[float, Pairs] | list[Pairs] | None = None,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    reference: Reference | None = None,
    max_calls: int | None = None,
    seed: int = 0,
    batch: int = 4096,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Fit:
    """Fit a solver with ``nfe`` calls to a field; the network is only called, never changed.

    A quarter of the pairs is held out for validation. The iterate with the best PSNR on them (of their
    features, for a loss of features) is returned, which may be the initial solver; the fit ends when
    validation no longer improves.

    Several numbers of calls, guidance scales or fields share one theta: each combination is a task, whose
    solver has parameters linear in theta. The objective is then the mean over tasks of the logarithm of the
    loss, and the numbers of calls and scales midway between the fitted ones are also validated.

    Args:
        field: the model; several models for one solver; or a function from a guidance scale to the field, for
            models that apply guidance themselves.
        nfe: number of network calls of the solver, or several numbers.
        guidance: guidance scale, or several above 0; that of the field by default.
        family: ``"non_stationary"``, the default for one number of calls; ``"timesteps"``; ``"scale_time"``
            (on the midpoint method, if ``nfe`` is even, or another by ``init``); for several,
            ``"smooth_corrections"``, their default; or solvers of :mod:`fewstep.families`.
        init: the start of a non-stationary or timesteps fit: the name of a classical solver, such as
            ``"ab2"`` or ``"deis3/cosine"`` (see :func:`fewstep.classical.named`); or, for a non-stationary
            fit, a solver with as many calls or fewer, classical or fitted, of any family. By default, or
            with ``"auto"``, classical solvers are scored on training pairs, Gauss-Newton takes a few
            iterations from the best and from DEIS of order 3 on the cosine grid, and goes on from the one
            that led furthest and, for validation to choose, from DEIS; Adam and minibatches start from DEIS
            or, with ``"auto"``, from the best. For a scale-time fit the name of its base: a Runge-Kutta
            method, or ``"ab2"``, ``"ab3"``, ``"ab4"``.
        loss: ``"rmse"``, ``"log_mse"``, ``"mse"`` or ``"pseudo_huber"`` of the sample; ``"nodes"``, the RMSE
            of every trajectory point; :class:`~fewstep.fitting.Features` of the sample; with Adam also
            ``"soft"``, that of the sample from the best nearby noise, and for a one-step family ``"bound"``,
            the RMSE bound of the Bespoke paper, or ``"local"``, the local truncation error.
        optimizer: ``"gauss_newton"``, which needs no gradients of the network, ``"adam"``, or the settings of
            either: :class:`fewstep.fitting.GaussNewton`, :class:`fewstep.fitting.Adam`.
        pairs: number of reference pairs to make for each field and scale, at least 4; or the pairs, in a list
            for several fields, and by scale, with the same noises, for several scales. By default as many as
            ``per_sample`` has rows; else with ``max_calls`` from 16 to 256, as many as allow twenty
            iterations on them; else 256, or 128 with several tasks.
        conditions: keyword arguments of the network that all pairs share.
        per_sample: keyword arguments of the network with one row per pair, or one row for all: tensors,
            arrays, lists, and mappings of them.
        reference: settings of the reference.
        max_calls: stop before the fit makes more network calls than this, the reference included.
        seed: seed of the noises (and of minibatches). Noise ``k`` is the same for any ``pairs``.
        batch: most samples per network call; where guidance needs one call, that has twice as many states.
        device: device of the noises; by default that of the network.
        progress: show progress bars.

    Returns:
        The solver or solvers, and the record of the fit.

    Raises:
        ValueError: on arguments that do not fit together.
    """
    question = ask(field, nfe, guidance, family, init, loss, optimizer)
    maker = Maker(conditions, per_sample, reference or Reference(), seed, device, batch, progress)
    return run(question, maker, pairs, max_calls=max_calls)


def run(
    question: Question, maker: Maker, pairs: Any, *, max_calls: int | None = None, rivals: bool = True
) -> Fit:
    """Make pairs, choose a start, optimise, choose an iterate and report.

    With ``rivals`` classical solvers are measured, and returned where no iterate beats them.
    """
    mapped, ledger = _features_read(question.loss), Ledger(max_calls)
    with ledger.timed("reference"):
        data = given_pairs(question, maker, pairs, ledger)
        ready = prepared(question.loss, data, maker.reference, ledger)
    rollout = Rollout(data[0].source.field, maker.batch)
    problem = Problem.of(question, ready, rollout)
    rollout.limit = check_budget(ledger, problem.calls)
    starts, order = [Start(question, problem, optimised(question, problem, maker.seed))], list[str]()
    if question.open:
        with ledger.timed("search"):
            starts, order = chosen_starts(starts[0], ready, maker.seed, ledger)
            ledger.calls["search"] = rollout.calls
    with ledger.timed("fit"):
        chosen, question, problem = _best(starts, rollout, maker.progress)
        ledger.calls["fit"] = rollout.calls - ledger.calls.get("search", 0)
    with ledger.timed("errors"):
        before = rollout.calls
        rows = problem.rows(chosen.theta, rivals=rivals, more=order[:NAMED])
        ledger.calls["errors"] = rollout.calls - before
    # Features and nodes are worth some RMSE to those who fit them.
    by_rmse = question.alone and isinstance(question.loss.judge, EndpointLoss)
    fallback = _unbeaten(rows, problem.start) if by_rmse else None
    notes = (*budget_notes(ledger, chosen, question.loss.name), *_notes(chosen, rows, data, fallback))
    report = FitReport(
        family=question.solvers.name,
        start=problem.start,
        optimizer=question.optimizer.name,
        loss=question.loss.name,
        parameters=len(chosen.theta),
        pairs={"train": len(data[0].train), "validation": len(data[0].held_out)},
        rows=rows,
        calls=ledger.calls,
        seconds=ledger.seconds,
        reference_error=reference_error(data),
        best_iteration=chosen.iteration,
        stopped=chosen.stopped,
        curve=tuple(chosen.curve),
        seed=maker.seed,
        reference={key: value for key, value in data[0].train.provenance.items() if key != "field"},
        notes=(*ledger.notes, *notes),
        feature_calls=_features_read(question.loss) - mapped,
    )
    return _fit(question, chosen.theta, report, fallback)


def _best(starts: Sequence[Start], rollout: Rollout, progress: bool) -> tuple[Chosen, Question, Problem]:
    """Fit from each start, with equal shares of the network calls; return the best by validation PSNR."""
    found, limit = [], rollout.limit
    for k, (question, problem, iterates) in enumerate(starts):
        rollout.limit = rollout.calls + (limit - rollout.calls) / (len(starts) - k)
        chosen = _followed(question, problem, iterates, progress)
        found.append((chosen.curve[chosen.iteration]["validation_psnr"], chosen, question, problem))
    rollout.limit = limit
    return max(found, key=lambda each: each[0])[1:]


def _followed(question: Question, problem: Problem, iterates: Iterator[Iterate], progress: bool) -> Chosen:
    """Run the optimiser and choose an iterate."""

    def validation(theta: Tensor) -> tuple[Tensor, Tensor]:
        found = [task.errors(theta, question.loss.judge) for task in problem.judged]
        mse, judged = (torch.cat(part) for part in zip(*found, strict=True))
        return mse, judged

    calls, settings = ", ".join(map(str, question.nfes)), question.optimizer
    return follow(iterates, validation, problem.rollout, settings, progress, f"fitting {calls} calls")


def _unbeaten(rows: tuple[dict[str, Any], ...], start: str) -> str | None:
    """Return the classical solver that beats the only fit on validation, whose error is then the result's."""
    errors: dict[str, float] = rows[0]["errors"]
    rivals = [name for name in errors if name not in ("fitted", start)]
    best = min(rivals, key=lambda name: errors[name], default=None)
    if best is None or not errors[best] < errors["fitted"]:
        return None
    errors["fitted"] = errors[best]
    return best


def _fit(question: Question, theta: Tensor, report: FitReport, fallback: str | None) -> Fit:
    """Return the fit with the chosen parameters, or with a classical solver."""
    fields = [source.field for source in question.sources if source.guidance == question.sources[-1].guidance]
    fitted_for = fields[0].describe()
    if len(fields) > 1:
        fitted_for["also"] = [field.describe() for field in fields[1:]]
    if fallback is not None:
        schedule = question.sources[0].field.schedule
        solver = replace(classical.named(fallback, question.nfes[0], schedule), name=fallback)
        return Fit(solver, None, report, fitted_for)
    if isinstance(question.solvers, Family):
        return Fit(question.solvers.solver(theta), None, report, fitted_for)
    return Fit(question.solvers, theta, report, fitted_for)


def _features_read(loss: Loss) -> int:
    """Return the number of samples passed to the feature map of a loss so far."""
    return loss.judge.calls if isinstance(loss.judge, Features) else 0


def _notes(
    chosen: Chosen, rows: Sequence[Mapping[str, Any]], data: Sequence[Data], fallback: str | None
) -> Iterator[str]:
    if fallback is not None:
        yield (
            f"no iterate beats {fallback} on validation (the best of them has an RMSE of "
            f"{chosen.curve[chosen.iteration]['validation']:.4g}); {fallback} is returned. Try more pairs."
        )
    elif chosen.iteration == 0:
        yield "no iterate was better than the start on validation; the start is returned. Try more pairs."
    if chosen.rough is not None:
        yield (
            f"the network is rough: its derivatives led no further than iteration {chosen.rough - 1}, and "
            "differences of whole rollouts, which cost more calls, were taken from there."
        )
    elif len(chosen.curve) < 3 and chosen.stopped == SETTLED:
        yield f"the optimiser stalled after {len(chosen.curve) - 1} iterations."
    errors = [row["errors"] for row in rows]
    worse = [
        f"{row['nfe']} calls" + ("" if row["guidance"] is None else f" at guidance {row['guidance']:g}")
        for row in rows
        if row["errors"]["fitted"] > min(row["errors"].values())
    ]
    if worse:
        yield (
            f"with {', '.join(worse)} a classical solver is better on validation than the fit; fit that very "
            "place, start from that solver by init, or take more pairs."
        )
    yield from reference_notes(data, min(each["fitted"] for each in errors))
    held_out = len(data[0].held_out)
    if held_out < 8:
        yield f"validation rests on {held_out} pairs only; more pairs make a safer choice."
