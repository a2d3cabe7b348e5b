"""Fits of a solver, or several with shared parameters, to one or several fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from .. import classical
from ..families import FAMILIES, Family, Solvers
from ..pairs import Pairs
from ..solver import Solver
from ._budget import Ledger, budget_notes, check_budget
from ._data import Data, given_pairs, prepared, reference_error, reference_notes
from ._follow import SETTLED, Chosen, follow
from ._last import last_steps, reserved
from ._pairs import Maker
from ._question import Fields, Question, ask
from ._report import FitReport, few_decide, place
from ._result import Fit
from ._rollout import Rollout
from ._settings import Optimizer, Reference
from ._starts import Start, begun, ranking, rival_start
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
    features, for a loss of features) is chosen, which may be the initial solver; the fit ends when
    validation no longer improves. From that iterate Gauss-Newton takes two last steps on all pairs. One
    solver that a classical one outdoes on validation is not returned, but that one.

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
            with ``"auto"``, Gauss-Newton starts from DEIS of order 3 on the cosine grid; where that gains
            less than 5 dB over the best classical solver, fits from the best are begun, the one that leads
            furthest is finished, and validation chooses. Adam and minibatches start from DEIS or, with
            ``"auto"``, from the best on training pairs. For a scale-time fit the name of its base: a
            Runge-Kutta method, or ``"ab2"``, ``"ab3"``, ``"ab4"``.
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
    start = begun(question, ready, rollout, maker.seed)
    rollout.limit = check_budget(ledger, start.problem.calls)
    chosen, (question, problem, _), order = _best(start, ready, maker, ledger)
    with ledger.timed("fit"):
        before = rollout.calls
        theta, steps = last_steps(question, ready, chosen, rollout)
        ledger.calls["fit"] += rollout.calls - before
    with ledger.timed("errors"):
        before = rollout.calls
        rows = problem.rows(chosen.theta, rivals=rivals, more=order[:NAMED])
        ledger.calls["errors"] = rollout.calls - before
    if isinstance(question.loss.judge, EndpointLoss):  # features and nodes are worth some RMSE
        _put_back(rows)
    fallback = rows[0]["returned"] if question.alone else None
    spent = budget_notes(ledger, chosen, question.loss.name)
    notes = (*spent, *_notes(chosen, rows, data, fallback), *few_decide(rows))
    report = FitReport(
        family=question.solvers.name,
        start=problem.start,
        optimizer=question.optimizer.name,
        loss=question.loss.name,
        parameters=len(theta),
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
        last_steps=0 if fallback else steps,
        notes=(*ledger.notes, *notes),
        feature_calls=_features_read(question.loss) - mapped,
    )
    return _fit(question, theta, report, fallback, data[0].train)


def _best(
    start: Start, data: Sequence[Data], maker: Maker, ledger: Ledger
) -> tuple[Chosen, Start, list[str]]:
    """Fit from the start, and from another if that gains little; return the best by validation PSNR.

    Also returns the ranked names of classical solvers.
    """
    question, rollout, order = start.question, start.problem.rollout, list[str]()
    if question.open:
        with ledger.timed("search"):
            order = ranking(start, data, ledger)
            ledger.calls["search"] = rollout.calls
        if order and not question.contested:
            solvers = FAMILIES[question.solvers.name](question.nfes, order[0], rollout.field)
            start = begun(question._replace(solvers=solvers), data, rollout, maker.seed)
    with ledger.timed("fit"):
        limit = rollout.limit
        rollout.limit -= reserved(start.problem, question)
        chosen = _followed(start, maker.progress)
        other = rival_start(start, chosen, order, data, maker.seed, ledger) if order else None
        if other is not None:
            again = _followed(other, maker.progress)
            if _psnr(again) > _psnr(chosen):
                chosen, start = again, other
        rollout.limit = limit
        ledger.calls["fit"] = rollout.calls - ledger.calls.get("search", 0)
    return chosen, start, order


def _psnr(chosen: Chosen) -> float:
    return chosen.curve[chosen.iteration]["validation_psnr"]


def _followed(start: Start, progress: bool) -> Chosen:
    """Run the optimiser and choose an iterate."""
    question, problem, iterates = start

    def validation(theta: Tensor) -> tuple[Tensor, Tensor]:
        found = [task.errors(theta, question.loss.judge) for task in problem.judged]
        mse, judged = (torch.cat(part) for part in zip(*found, strict=True))
        return mse, judged

    calls, settings = ", ".join(map(str, question.nfes)), question.optimizer
    return follow(iterates, validation, problem.rollout, settings, progress, f"fitting {calls} calls")


def _put_back(rows: Sequence[dict[str, Any]]) -> None:
    """Let classical solvers that outdo the fitted ones on validation take their places."""
    for row in rows:
        rival = row["outdone_by"]
        if rival is not None and row["model"] is None:
            errors = {**row["errors"], "fitted": row["errors"][rival]}
            row.update(errors=errors, outdone_by=None, returned=rival, typical=1.0, left=None, by_chance=None)


def _fit(question: Question, theta: Tensor, report: FitReport, fallback: str | None, pairs: Pairs) -> Fit:
    """Return the fit with the chosen parameters, or with a classical solver."""
    fields = [source.field for source in question.sources if source.guidance == question.sources[-1].guidance]
    fitted_for = fields[0].describe()
    if conditions := sorted({*pairs.conditions, *pairs.per_sample}):
        fitted_for["conditions"] = conditions
    if len(fields) > 1:
        fitted_for["also"] = [field.describe() for field in fields[1:]]
    if fallback is not None:
        schedule = question.sources[0].field.schedule
        solver = replace(classical.named(fallback, question.nfes[0], schedule), name=fallback)
        return Fit(solver, None, report, fitted_for, ref(fields[0]))
    if isinstance(question.solvers, Family):
        return Fit(question.solvers.solver(theta), None, report, fitted_for, ref(fields[0]))
    return Fit(question.solvers, theta, report, fitted_for, ref(fields[0]))


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
    elif returned := [f"{row['returned']} with {place(row)}" for row in rows if row["returned"]]:
        yield f"{', '.join(returned)} is better on validation than the fit, and returned there."
    elif chosen.iteration == 0:
        yield "no iterate was better than the start on validation; the start is returned. Try more pairs."
    if chosen.rough is not None:
        yield (
            f"derivatives led no further than iteration {chosen.rough - 1}, as of a rough network, and "
            "differences of whole rollouts, which cost more calls, were taken from there."
        )
    elif len(chosen.curve) < 3 and chosen.stopped == SETTLED:
        yield f"the optimiser stalled after {len(chosen.curve) - 1} iterations."
    errors = [row["errors"] for row in rows]
    worse = [place(row) for row in rows if row["outdone_by"]]
    if worse:
        yield (
            f"with {', '.join(worse)} a classical solver is better on validation than the fit; fit that very "
            "place, start from that solver by init, or take more pairs."
        )
    yield from reference_notes(data, min(each["fitted"] for each in errors))
    held_out = len(data[0].held_out)
    if held_out < 8:
        yield f"validation rests on {held_out} pairs only; more pairs make a safer choice."
