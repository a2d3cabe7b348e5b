"""Tasks of a fit: solvers that share a theta, on the pairs of every field and scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._gains import best_rival
from ._data import Data
from ._follow import outdone
from ._gains import left, median_ratio
from ._question import Question, Source
from ._rivals import rival_errors
from ._rollout import Rollout
from ._task import Task
from .losses import ENDPOINT_LOSSES

__all__ = ["Problem"]


class Place(NamedTuple):
    """Number of calls, field and scale of a task, and whether it is fitted."""

    nfe: int
    source: Source
    trained: bool


class Problem(NamedTuple):
    """Tasks on training pairs and on validation pairs, of which the rollout counts all calls.

    The judged tasks, with their places, are also midway between fitted numbers of calls and scales.
    ``start`` is the name of the solver at ``theta = 0``.
    """

    rollout: Rollout
    trained: list[Task]
    judged: list[Task]
    places: list[Place]
    start: str

    @classmethod
    def of(cls, question: Question, data: Sequence[Data], rollout: Rollout) -> Problem:
        """Return the tasks of a question on prepared pairs, whose calls the rollout counts."""
        trained, judged, places = [], [], []
        models = [part.source.model for part in data]
        ordered = sorted(data, key=lambda part: (models.index(part.source.model), part.source.guidance or 0))
        for nfe in sorted({*question.nfes, *question.midway}):
            for source, train, held_out in ((part.source, part.train, part.held_out) for part in ordered):
                solvers, own = question.solvers.member(nfe, source.guidance), rollout.sharing(source.field)
                fitted = nfe in question.nfes and len(train) > 0
                if fitted:
                    trained.append(Task(own, solvers, train))
                judged.append(Task(own, solvers, held_out))
                places.append(Place(nfe, source, fitted))
        return cls(rollout, trained, judged, places, judged[0].solvers.own.start)

    @property
    def calls(self) -> int:
        """Network calls for the training loss and the validation of one theta."""
        return sum(task.calls for task in (*self.trained, *self.judged))

    def rows(self, theta: Tensor, *, rivals: bool, more: Iterable[str] = ()) -> tuple[dict[str, Any], ...]:
        """Return validation errors of the fitted solvers, the start and, with rivals, classical solvers.

        Rivals are those on the uniform grid, and ``more`` by name. See ``rows`` of :class:`FitReport`.
        """
        self.rollout.limit = math.inf
        rows = []
        for (nfe, source, trained), task in zip(self.places, self.judged, strict=True):
            mse = rival_errors(task, nfe, more) if rivals else {}
            mse["fitted"], least, others = task.limits(theta)
            mse[self.start], _ = task.errors(torch.zeros_like(theta), ENDPOINT_LOSSES["rmse"])
            means = torch.stack([each.sqrt().mean() for each in mse.values()]).tolist()
            errors = {
                k: mean if math.isfinite(mean) else math.inf for k, mean in zip(mse, means, strict=True)
            }
            better = [k for k in errors if k not in ("fitted", self.start) and outdone(mse["fitted"], mse[k])]
            rows.append({
                "nfe": nfe, "guidance": source.guidance, "model": source.model, "trained": trained,
                "errors": errors,
                "outdone_by": min(better, key=errors.__getitem__, default=None),
                "returned": None,
                "typical": median_ratio(mse["fitted"], mse[best_rival(errors)]),
                **left(mse["fitted"], least, others, task.pairs.x0[0].numel(), nfe + 1),
            })  # fmt: skip
        return tuple(rows)
