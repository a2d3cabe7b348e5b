"""The pairs of every field and guidance scale of a fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._conditions import most_rows
from ..pairs import Pairs
from ..reference import remarks
from ._budget import FEWEST, PAIRS, Ledger, affordable_pairs
from ._gauss_newton import Linearised
from ._pairs import Maker, held_back, joined
from ._question import Question, Source
from ._rivals import ranking_cost
from ._rollout import BudgetSpentError, Rollout
from ._settings import GaussNewton, Reference
from ._task import Task
from .losses import ENDPOINT_LOSSES, Loss

__all__ = ["Data", "given_pairs", "prepared", "reference_error", "reference_notes"]

#: Pairs of each task if several are fitted.
PAIRS_EACH = 128
#: Error of a reference over that of the fitted solver, above which the report says so; and over the
#: tolerances, above which the network is rough: that of smooth ones is about ten times these.
TELLING, ROUGH = 0.2, 30.0


@dataclass(frozen=True)
class Data:
    """Training and validation pairs of one field and scale; only the latter between fitted scales."""

    source: Source
    train: Pairs
    held_out: Pairs
    whole: Pairs

    @property
    def error(self) -> float:
        """Estimated RMSE of the reference."""
        return self.held_out.error

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)


def given_pairs(question: Question, maker: Maker, pairs: Any, ledger: Ledger) -> list[Data]:
    """Return the pairs of each field and scale, new or given as in :func:`fewstep.fit`."""
    if pairs is None:
        pairs = most_rows(maker.per_sample or {}) or (
            PAIRS_EACH if not question.alone else PAIRS if ledger.max_calls is None else None
        )
    if pairs is None:
        each = [_planned(question, maker, ledger)]
    else:
        wanted = _by_source(question, pairs)
        each = [maker(source.field, those) for source, those in zip(question.sources, wanted, strict=True)]
    _check_same_noises(question, each)
    ledger.calls["reference"] = sum(those.calls for those in each)
    data = [
        Data(source, *held_back(those), those) for source, those in zip(question.sources, each, strict=True)
    ]
    for source in question.between:
        like = next(part.held_out for part in data if part.source.model == source.model)
        made = maker.solve(source.field, like.x0, like.conditions, like.per_sample)
        ledger.calls["reference"] += made.calls
        data.append(Data(source, made[:0], made, made))
    return data


def prepared(loss: Loss, data: Sequence[Data], reference: Reference, ledger: Ledger) -> list[Data]:
    """Return the pairs with the further targets of the loss."""
    ready = []
    for part in data:
        field, tolerances = part.source.field, reference.tolerances(part.source.field)
        if loss.judge is loss:
            whole, calls = loss.prepared(part.whole, field, **tolerances)
            part = Data(part.source, *whole.split(len(part.held_out)), whole)
        else:
            train, calls = loss.prepared(part.train, field, **tolerances)
            held_out, _ = loss.judge.prepared(part.held_out, field, **tolerances)
            part = replace(part, train=train, held_out=held_out)
        ledger.calls["reference"] += calls
        ready.append(part)
    return ready


def reference_error(data: Sequence[Data]) -> float:
    """Return the largest estimate over fields and scales, NaN if there is none."""
    return max((part.error for part in data if not math.isnan(part.error)), default=math.nan)


def reference_notes(data: Sequence[Data], fitted: float) -> Iterator[str]:
    """Yield remarks on the error of the reference; ``fitted`` is the RMSE of the best fitted solver."""
    yield from dict.fromkeys(note for part in data for note in remarks(part.held_out.provenance))
    error = reference_error(data)
    if not error > TELLING * fitted:
        return
    worst = next(part.held_out for part in data if part.error == error)
    made, scale = worst.provenance, float(worst.x1.square().mean().sqrt())
    advice = "tighten rtol and atol"
    if "steps" in made:
        advice = f"double the {made['steps']} steps of its fixed grid by fitting.Reference(steps=...)"
    elif error > ROUGH * (made.get("atol", math.inf) + made.get("rtol", math.inf) * scale):
        advice = (
            "the network is rough, as one that rounds its time is, so take a fixed grid, as by "
            "fitting.Reference(steps=500), rather than tighter tolerances"
        )
    yield f"the reference's own error ({error:.2g}) is not small against the fitted solver's; {advice}."


def _planned(question: Question, maker: Maker, ledger: Ledger) -> Pairs:
    """Make a few pairs, measure the cost of pairs and iterations, and make more as the budget allows."""
    field, family, settings = question.sources[0].field, question.family, question.optimizer
    first, linearisation, more = maker(field, FEWEST), None, 0
    rollout = Rollout(field, maker.batch, ledger.left - first.calls)
    with suppress(BudgetSpentError):
        if isinstance(settings, GaussNewton) and settings.minibatch is None:
            task = Task(rollout, family.member(), first)
            # The calls are the same for every loss.
            fitter = Linearised(task, ENDPOINT_LOSSES["rmse"], settings, settings.reuse)
            linearisation = _linearisation_cost(fitter)
        left = ledger.left - rollout.calls - (ranking_cost(family.nfe, field) if question.open else 0)
        each = first.calls / len(first)
        more = affordable_pairs(left, family.nfe, each, linearisation) - len(first)
    if rollout.calls:
        ledger.calls["plan"] = rollout.calls
    return joined(first, maker(field, more, start=len(first))) if more else first


def _linearisation_cost(fitter: Linearised) -> float:
    """Measure the network calls per pair of an iteration's Jacobian, at the start, on a few pairs."""
    rollout, theta = fitter.rollout, torch.zeros(fitter.family.size, dtype=torch.float64)
    few = rollout.team.own(fitter.pairs)[:4]
    linearise, _ = fitter.columns.at(theta, few)
    before = rollout.calls  # leave out measurements that are made once

    def work() -> Tensor:
        linearise(few)
        return torch.tensor([len(few)])

    count = int(torch.cat(rollout.together(work)).sum())
    fresh = (rollout.calls - before) / count
    return (fresh + fitter.reuse * fitter.family.nfe) / (1 + fitter.reuse)


def _by_source(question: Question, pairs: Any) -> list[int | Pairs]:
    """Return the number of pairs, or the pairs, for each source."""
    sources = question.sources
    if isinstance(pairs, Mapping):
        given = {float(w): those for w, those in pairs.items()}
        missing = [f"{s.guidance:g}" for s in sources if s.guidance is not None and s.guidance not in given]
        if missing or any(s.guidance is None or s.model for s in sources):
            raise ValueError(
                "fit: pairs by scale go with several guidance scales of one field, and must have all; "
                f"they have {', '.join(f'{w:g}' for w in given) or 'none'}."
            )
        return [given[float(s.guidance or 1)] for s in sources]
    if isinstance(pairs, list | tuple):
        if len(pairs) != len(sources) or any(s.guidance is not None for s in sources):
            raise ValueError(
                f"fit: a list of pairs goes with as many fields, but there are {len(pairs)} for "
                f"{len(sources)} fields and scales."
            )
        return list(pairs)
    if isinstance(pairs, Pairs) and len(sources) > 1:
        raise ValueError(
            f"fit: one set of pairs cannot serve {len(sources)} fields and scales; pass a number, a list "
            "with the pairs of each field, or a dict with those of each scale."
        )
    return [pairs] * len(sources)


def _check_same_noises(question: Question, each: Sequence[Pairs]) -> None:
    for source, those in zip(question.sources, each, strict=True):
        if source.guidance is not None and source.model is None and not torch.equal(those.x0, each[0].x0):
            raise ValueError(
                "fit: pairs must have the same noises at every guidance scale; make them all from one x0."
            )
        if len(those) != len(each[0]):
            raise ValueError(
                f"fit: every field needs as many pairs, but there are {len(each[0])} and {len(those)}."
            )
