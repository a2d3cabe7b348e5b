"""Fits of a solver, or several with shared parameters, to one or several fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..families import FAMILIES, Family, Solvers
from ..pairs import Pairs
from ..solver import Solver
from ._adam import adam, objective
from ._budget import Ledger, budget_notes, check_budget
from ._data import Data, given_pairs, prepared
from ._follow import Chosen, follow
from ._gauss_newton import Iterate, gauss_newton
from ._pairs import Maker
from ._problem import Problem
from ._question import Fields, Question, ask
from ._report import FitReport
from ._result import Fit
from ._rivals import best_classical
from ._rollout import Rollout
from ._settings import GaussNewton, Optimizer, Reference
from .losses import Features, LeastSquares, Loss

__all__ = ["fit", "run"]


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
            ``"ab2"`` or ``"deis3/cosine"`` (see :func:`fewstep.classical.named`); ``"auto"``, the classical
            solver with the best PSNR on at most 32 training pairs; or, for a non-stationary fit, a solver
            with as many calls or fewer, classical or fitted, of any family. By default DEIS of order 3 on the
            cosine grid or, if that has no table of velocities, Adams-Bashforth 2. For a scale-time fit the
            name of its base: a Runge-Kutta method, or ``"ab2"``, ``"ab3"``, ``"ab4"``.
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
    return run(question, maker, pairs, auto=init == "auto", max_calls=max_calls)


def run(
    question: Question,
    maker: Maker,
    pairs: Any,
    *,
    auto: bool = False,
    max_calls: int | None = None,
    rivals: bool = True,
) -> Fit:
    """Make pairs, optimise, choose an iterate and report.

    With ``auto`` the best classical start is searched for, with ``rivals`` classical solvers are measured.
    """
    mapped, ledger = _features_read(question.loss), Ledger(max_calls)
    with ledger.timed("reference"):
        data = given_pairs(question, maker, pairs, ledger, searched=auto)
    if auto:
        with ledger.timed("search"):
            question = _from_the_best(question, data[0], ledger, maker.batch)
    with ledger.timed("reference"):
        ready = prepared(question.loss, data, maker.reference, ledger)
    problem = Problem.of(question, ready, maker.batch)
    problem.rollout.limit = check_budget(ledger, problem.calls)
    with ledger.timed("fit"):
        chosen = _followed(question, problem, maker)
        ledger.calls["fit"] = problem.rollout.calls
    with ledger.timed("errors"):
        rows = problem.rows(chosen.theta, rivals=rivals)
        ledger.calls["errors"] = problem.rollout.calls - ledger.calls["fit"]
    notes = (*budget_notes(ledger, chosen, question.loss.name), *_notes(chosen, rows, data))
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
        reference_error=_reference_error(data),
        best_iteration=chosen.iteration,
        stopped=chosen.stopped,
        curve=tuple(chosen.curve),
        seed=maker.seed,
        reference={key: value for key, value in data[0].train.provenance.items() if key != "field"},
        notes=(*ledger.notes, *notes),
        feature_calls=_features_read(question.loss) - mapped,
    )
    return _fit(question, chosen.theta, report)


def _from_the_best(question: Question, data: Data, ledger: Ledger, batch: int) -> Question:
    """Replace the start by the classical solver that is best on training pairs."""
    nfe, name, field = question.nfes[0], question.solvers.name, data.source.field
    least = 2 if name == "timesteps" else 1
    left = ledger.left - nfe * len(data)
    choice = best_classical(Rollout(field, batch, left), nfe, data.train, steps=least)
    ledger.calls["search"] = choice.calls
    ledger.notes.append(choice.note)
    if choice.name is None:
        return question
    return question._replace(solvers=FAMILIES[name](question.nfes, choice.name, field))


def _followed(question: Question, problem: Problem, maker: Maker) -> Chosen:
    """Run the optimiser and choose an iterate."""
    settings, loss = question.optimizer, question.loss
    iterates: Iterator[Iterate]
    if isinstance(settings, GaussNewton):
        assert isinstance(loss, LeastSquares)  # checked by the question
        iterates = gauss_newton(problem.trained, loss, settings, maker.seed)
    else:
        (task,) = problem.trained
        family = task.solvers.own
        lowered = objective(loss, task.rollout, family, task.pairs)
        iterates = adam(lowered, family.size, task.pairs, settings, maker.seed)

    def validation(theta: Tensor) -> tuple[Tensor, Tensor]:
        found = [task.errors(theta, loss.judge) for task in problem.judged]
        mse, judged = (torch.cat(part) for part in zip(*found, strict=True))
        return mse, judged

    calls = ", ".join(map(str, question.nfes))
    return follow(iterates, validation, problem.rollout, settings, maker.progress, f"fitting {calls} calls")


def _fit(question: Question, theta: Tensor, report: FitReport) -> Fit:
    """Return the fit with the chosen parameters."""
    fields = [source.field for source in question.sources if source.guidance == question.sources[-1].guidance]
    fitted_for = fields[0].describe()
    if len(fields) > 1:
        fitted_for["also"] = [field.describe() for field in fields[1:]]
    if isinstance(question.solvers, Family):
        return Fit(question.solvers.solver(theta), None, report, fitted_for)
    return Fit(question.solvers, theta, report, fitted_for)


def _features_read(loss: Loss) -> int:
    """Return the number of samples passed to the feature map of a loss so far."""
    return loss.judge.calls if isinstance(loss.judge, Features) else 0


def _reference_error(data: Sequence[Data]) -> float:
    """Return the largest estimate over fields and scales, NaN if there is none."""
    known = [part.error for part in data if not math.isnan(part.error)]
    return max(known, default=math.nan)


def _notes(chosen: Chosen, rows: Sequence[Mapping[str, Any]], data: Sequence[Data]) -> Iterator[str]:
    if chosen.iteration == 0:
        yield "no iterate was better than the start on validation; the start is returned. Try more pairs."
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
    error = _reference_error(data)
    if error > 0.2 * min(each["fitted"] for each in errors):
        yield (
            f"the reference's own error ({error:.2g}) is not small against the fitted solver's; tighten rtol "
            "and atol."
        )
    held_out = len(data[0].held_out)
    if held_out < 8:
        yield f"validation rests on {held_out} pairs only; more pairs make a safer choice."
