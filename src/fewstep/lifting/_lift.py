"""Lifts of a fitted solver: small networks that correct its states."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from .._conditions import refuse_conditions
from .._hashing import fingerprint
from .._names import check_name
from ..field import Field, check_field
from ..fitting import Fit, Reference
from ..fitting.losses import ENDPOINT_LOSSES, EndpointLoss, Features, LeastSquares
from ..lifted import Lifted
from ..metrics import rmse
from ..networks import Corrector
from ..pairs import Pairs
from ..reference import finest
from ..solver import Solver
from ._cost import share_of_a_call
from ._pairs import make
from ._rollouts import Rollouts, check_gradients, normalise
from ._settings import Training
from ._training import Trained, train

__all__ = ["lift"]

#: Share of the pairs for validation, their smallest and their largest number. Few samples that get much worse
#: would not be among fewer.
_VALIDATION, _LEAST, _MOST = 0.15, 32, 1024
#: Fewest pairs.
_FEWEST = 64
#: File of the state of the training in its folder.
_STATE = "training.safetensors"
#: Time of the samples, which losses of them do not read.
_END = torch.ones(1)
#: Standard errors by which the corrections must be better on the validation pairs.
_SURE = 2.0


def lift(
    fit: Solver | Fit,
    field: Field | None = None,
    *,
    pairs: int | Pairs = 4096,
    states: Literal["every", "last"] = "every",
    loss: str | LeastSquares = "rmse",
    teacher: Solver | None = None,
    training: Training | None = None,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    reference: Reference | None = None,
    seed: int = 1,
    folder: str | Path | None = None,
    batch: int = 256,
    progress: bool = False,
) -> Solver:
    """Train small networks that correct the states of a solver, for a field that is not changed.

    A table combines the velocities that it has seen. The corrections add what lies outside their span. They
    read the first state, all predictions so far and the state, and are zero at first. A sixth of the pairs,
    and 32 at least, is held out: the training stops when they no longer improve, and what was best on them is
    kept. SpanLift (2026, arXiv 2606.08672) corrects the steps of a solver like this.

    Args:
        fit: the solver, or a fit with one solver.
        field: the field that it was fitted for; by default that of a fit made here, while it lives.
        pairs: number of pairs of noise and reference sample to make, or the pairs. They should be as many as
            the budget allows, and not those that the solver was fitted to.
        states: ``"every"`` corrects each state, trained jointly, with gradients through the network, in the
            memory of ``fit.nfe`` calls; ``"last"`` the sample alone, where the network is called as often as
            there are pairs, and not differentiated.
        loss: ``"rmse"``, ``"mse"``, ``"log_mse"`` or ``"pseudo_huber"`` of the sample, or
            :class:`fewstep.fitting.Features` of it.
        teacher: a solver of more calls that makes the targets in place of the reference, such as a fit of
            twice as many calls: many cheap pairs are worth more than few exact ones, as long as its error is
            small beside that of the solver.
        training: settings of the training and of the networks.
        conditions: keyword arguments of the network that all pairs share.
        per_sample: those with one row per pair, or one row for all.
        reference: settings of the reference.
        seed: seed of the noises, of the first weights, and of the batches.
        folder: where to keep finished pairs and the state of the training; a lift that was interrupted goes
            on there.
        batch: most samples in a call of the network outside of the training.
        progress: show progress bars.

    Returns:
        The lifted solver, or, with a warning, the solver itself, where the corrections are not clearly better
        on the validation pairs.

    Raises:
        ValueError: on arguments that do not fit together, or a network that has no gradients.
    """
    solver, field = _checked(fit, field, states, teacher)
    last, settings, judge = states == "last", _settings(training), _loss(loss)
    place = None if folder is None else Path(folder)
    if isinstance(pairs, Pairs):
        pairs.warn_of_another(field, "lift")
        refuse_conditions("lift", conditions, per_sample)
        found = pairs
    else:
        found = make(
            field, pairs, teacher, conditions, per_sample, reference or Reference(),
            seed=seed, folder=place, batch=batch, progress=progress,
        )  # fmt: skip
    _check_pairs(solver, found)
    own, held_out = (
        judge.prepared(part, field, rtol=finest(field), atol=finest(field))[0]
        for part in found.split(min(_MOST, max(_LEAST, round(_VALIDATION * len(found)))))
    )
    if not last:
        check_gradients(solver, field, own)
    start = _untrained(solver, found, last, settings, seed)
    normalise(start, solver, field, own[:batch])
    trains, judged = (Rollouts(solver, field, part, last, batch) for part in (own, held_out))
    before = judged.all(start)
    depends = [solver.describe(), found.x0, found.x1, states, judge.name, asdict(settings), seed]
    trained = train(
        start, trains, own, lambda now: float(judge(judge.squared(judged.all(now), _END, held_out))), judge,
        settings, seed=seed, state=place and place / _STATE, identity=fingerprint(depends), progress=progress,
    )  # fmt: skip
    after = judged.all(trained.corrector)
    lifted = Lifted.of(solver, trained.corrector)
    facts = {
        "states": states,
        "loss": judge.name,
        "pairs": {"train": len(own), "validation": len(held_out)},
        "targets": {key: value for key, value in found.provenance.items() if key != "field"},
        "calls": {"targets": found.calls, "rollouts": trains.calls + judged.calls},
        "training": {**asdict(settings), "seed": seed},
        **_record(trained),
        "validation_rmse": {
            name: float(rmse(x, held_out.x1)) for name, x in (("solver", before), ("lifted", after))
        },
        "share_of_a_call": share_of_a_call(lifted, field, own[:batch]),
    }
    squared = (judge.squared(x, _END, held_out) for x in (before, after))
    return _judged(replace(lifted, lift=facts), _better(judge, *squared))


def _checked(
    fit: Solver | Fit, field: Field | None, states: str, teacher: Solver | None
) -> tuple[Solver, Field]:
    """Return the table to correct, and the field."""
    check_name("lift: states", states, ("every", "last"))
    solver = fit.solver if isinstance(fit, Fit) else fit
    solver = solver.uncorrected if isinstance(solver, Lifted) else solver
    if not isinstance(solver, Solver):
        raise ValueError(f"lift: fit must be a fewstep.Solver or Fit, not a {type(fit).__name__}.")
    if field is None and isinstance(fit, Fit) and fit.field is not None:
        field = fit.field()
    if field is None:
        raise ValueError(
            f"lift: field is missing, and {solver.name!r} is no fit made here of a field that still lives; "
            "pass the field that it was fitted for, as in lift(fit, field)."
        )
    check_field(field, "lift")
    solver.check_ode("lift")
    solver.readied(field.prediction, field.schedule)  # checks the schedule
    if teacher is not None and teacher.nfe <= solver.nfe:
        raise ValueError(
            f"lift: teacher must make more than the {solver.nfe} calls of {solver.name!r}, not "
            f"{teacher.nfe}; pass a solver of twice as many, or leave it out for targets of the reference."
        )
    return solver, field


def _check_pairs(solver: Solver, pairs: Pairs) -> None:
    if len(pairs) < _FEWEST:
        raise ValueError(f"lift: pairs must be {_FEWEST} at least, better thousands, not {len(pairs)}.")
    fitted, given = {*(solver.fitted_for or {}).get("conditions", ())}, {*pairs.conditions, *pairs.per_sample}
    if solver.fitted_for and fitted != given:
        raise ValueError(
            f"lift: {solver.name!r} was fitted with the conditions {sorted(fitted)}, and the pairs have "
            f"{sorted(given)}; pass the same ones, as conditions= or per_sample=."
        )


def _record(trained: Trained) -> dict[str, Any]:
    return {
        "steps": {"made": trained.steps, "best": trained.step},
        "stopped": trained.stopped,
        "curve": trained.curve,
        "weights": sum(weight.numel() for weight in trained.corrector.parameters()),
    }


def _better(judge: LeastSquares, before: Tensor, after: Tensor) -> bool:
    """True where squared errors fall in the mean, and clearly so there or for the typical sample.

    A few samples between two modes may decide the mean, and its standard error, whatever the others gain.
    """
    gains: Tensor = judge.rho(before) - judge.rho(after)
    typical = (before / after).log()
    return float(gains.mean()) > 0 and (_clear(gains) or _clear(typical))


def _clear(x: Tensor) -> bool:
    return bool(x.mean() > _SURE * x.std() / len(x) ** 0.5)


def _judged(lifted: Lifted, better: bool) -> Solver:
    """Return the lifted solver where it is better on the validation pairs, or the solver."""
    if better:
        return lifted
    errors, count = lifted.lift["validation_rmse"], lifted.lift["pairs"]["train"]
    warnings.warn(
        f"lift: {count} pairs were not enough: the corrections are not clearly better on validation "
        f"(RMSE {errors['lifted']:.4g}, {errors['solver']:.4g} without), and the solver itself is "
        "returned; pass more pairs, a teacher that makes them with fewer calls, or states='last'.",
        stacklevel=3,
    )
    return lifted.uncorrected


def _loss(loss: str | LeastSquares) -> LeastSquares:
    if isinstance(loss, str):
        check_name("lift: loss", loss, ENDPOINT_LOSSES, " or fitting.Features(...)")
        return ENDPOINT_LOSSES[loss]
    if not isinstance(loss, EndpointLoss | Features):
        raise ValueError(
            f"lift: loss must be a name or fitting.Features(...), of the sample, not {type(loss).__name__}."
        )
    return loss


def _settings(training: Training | None) -> Training:
    if not isinstance(training, Training | None):
        raise ValueError(
            f"lift: training must be fewstep.lifting.Training(...), not a {type(training).__name__}."
        )
    return training or Training()


def _untrained(solver: Solver, pairs: Pairs, last: bool, settings: Training, seed: int) -> Corrector:
    states = [solver.nfe] if last else range(1, solver.nfe + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = pairs.x0.shape[1:]
        patch = settings.patch or _patch(shape)
        made = Corrector(shape, solver.nfe, states, settings.width, settings.blocks, settings.kernel, patch)
    return made.to(pairs.x0.device)


def _patch(shape: Sequence[int]) -> int:
    largest = max(shape[1:], default=1)
    return 1 if largest <= 16 else 2 if largest <= 128 else 4
