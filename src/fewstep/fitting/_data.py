"""The pairs of every field and guidance scale of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .._conditions import most_rows
from ..pairs import Pairs
from ._budget import PAIRS, Ledger, planned_pairs, search_cost
from ._gauss_newton import Linearised
from ._pairs import Maker, held_back
from ._question import Question, Source
from ._rollout import Rollout
from ._settings import GaussNewton, Reference
from ._task import Task
from .losses import ENDPOINT_LOSSES, Loss

__all__ = ["Data", "given_pairs", "prepared"]

#: Pairs of each task if several are fitted.
PAIRS_EACH = 128


@dataclass(frozen=True)
class Data:
    """Training and validation pairs of one field and scale; only the latter between fitted scales."""

    source: Source
    train: Pairs
    held_out: Pairs

    @property
    def error(self) -> float:
        """Estimated RMSE of the reference."""
        return self.held_out.error

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)


def given_pairs(
    question: Question, maker: Maker, pairs: Any, ledger: Ledger, *, searched: bool
) -> list[Data]:
    """Return the pairs of each field and scale, new or given.

    Args:
        question: the fields and scales.
        maker: makes pairs.
        pairs: number of pairs, or the pairs, as in :func:`fewstep.fit`.
        ledger: counts calls.
        searched: whether a start will be searched for.
    """
    if pairs is None:
        pairs = most_rows(maker.per_sample or {}) or (
            PAIRS_EACH if not question.alone else PAIRS if ledger.max_calls is None else None
        )
    if pairs is None:
        each = [_planned(question, maker, ledger, searched)]
    else:
        wanted = _by_source(question, pairs)
        each = [maker(source.field, those) for source, those in zip(question.sources, wanted, strict=True)]
    _check_same_noises(question, each)
    ledger.calls["reference"] = sum(those.calls for those in each)
    data = [Data(source, *held_back(those)) for source, those in zip(question.sources, each, strict=True)]
    for source in question.between:
        like = next(part.held_out for part in data if part.source.model == source.model)
        made = maker.solve(source.field, like.x0, like.conditions, like.per_sample)
        ledger.calls["reference"] += made.calls
        data.append(Data(source, made[:0], made))
    return data


def prepared(loss: Loss, data: Sequence[Data], reference: Reference, ledger: Ledger) -> list[Data]:
    """Return the pairs with the further targets of the loss."""
    ready, tolerances = [], {"rtol": reference.rtol, "atol": reference.atol}
    for source, train, held_out in ((part.source, part.train, part.held_out) for part in data):
        if len(train):
            train, calls = loss.prepared(train, source.field, **tolerances)
            ledger.calls["reference"] += calls
        held_out, _ = loss.judge.prepared(held_out, source.field, **tolerances)
        ready.append(Data(source, train, held_out))
    return ready


def _planned(question: Question, maker: Maker, ledger: Ledger, searched: bool) -> Pairs:
    """Make as many pairs as the budget allows."""
    field, family, settings = question.sources[0].field, question.family, question.optimizer
    rollout = Rollout(field, maker.batch, ledger.left)
    whole = isinstance(settings, GaussNewton) and settings.minibatch is None

    def fitter(rollout: Rollout, first: Pairs) -> Linearised:  # calls are the same for every loss
        assert isinstance(settings, GaussNewton)
        task = Task(rollout, family.member(), first)
        return Linearised(task, ENDPOINT_LOSSES["rmse"], settings, settings.reuse)

    pairs = planned_pairs(
        partial(maker, field),
        fitter if whole else None,
        rollout,
        family.nfe,
        search_cost(family.nfe, field) if searched else 0,
    )
    if rollout.calls:
        ledger.calls["plan"] = rollout.calls
    return pairs


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
