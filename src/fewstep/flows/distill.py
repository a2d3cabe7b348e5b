"""Distillation: a student network that reproduces the teacher's samples in one or a few calls."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .. import classical, metrics
from .._hashing import fingerprint
from ..data import PairShards, is_picture, save_pictures
from ..field import Field
from ..schedules import CondOT
from ..solver import Solver
from . import _monitor
from .losses import Loss, mse
from .objective import Objective

__all__ = ["Distillation", "sample_error", "warm_start"]

_Self = TypeVar("_Self", bound="Distillation")

#: Images in a preview, and pairs per batch when an error is measured.
_SHOWN, _BATCH = 12, 256


def warm_start(field: Field) -> nn.Module:
    """Return a trainable copy of a field's network; the field's own weights do not change.

    Raises:
        ValueError: when the field is guided, or its network does not predict the velocity of straight paths.
    """
    if not isinstance(field.model, nn.Module) or next(field.model.parameters(), None) is None:
        raise ValueError(
            f"field: {field.name} is a {type(field.model).__name__}, which has no weights to train; give a "
            "field of a torch.nn.Module with parameters."
        )
    if field.prediction != "velocity" or field.schedule != CondOT():
        raise ValueError(
            f"field: {field.name} predicts {field.prediction} under {field.schedule!r}, but training on from "
            "it needs velocity under CondOT(); make pairs with it, and train a flow on them."
        )
    if field.guidance is not None:
        raise ValueError(
            f"field: {field.name} has guidance {field.guidance:g}, which its network alone does not apply; "
            "make pairs with it, and train from the field without guidance."
        )
    return copy.deepcopy(field.model).requires_grad_(True)


class Distillation(Objective):
    """A student that maps the noises of pairs to their samples with a solver of few calls.

    It minimises ``loss(solver.sample(student, x0), x1)``. With the default solver, one Euler step, this is
    ``loss(x0 + u(x0, 0), x1)``: the student is a flow that is trained at ``t = 0`` alone, and is sampled like
    any flow, with the solver that it was trained with. Liu, Gong and Liu, *Flow Straight and Fast* (ICLR
    2023); the straighter the teacher, the smaller the loss of quality (Lee, Kim and Ye, ICML 2023).

    The student stays in evaluation mode, without dropout, during training, as noise would disturb the
    regression.

    Args:
        student: ``student(x, t) -> velocity``, best initialised from the teacher; see :func:`warm_start`.
        loss: function ``loss(x, x1) -> scalar``, such as :func:`mse`, :func:`pseudo_huber` or a
            :func:`feature_mse`.
        solver: the solver of the student; one Euler step when ``None``.

    Raises:
        ValueError: when all weights of the student are frozen, or the loss is a module.
    """

    def __init__(self, student: nn.Module, loss: Loss = mse, solver: Solver | None = None) -> None:
        super().__init__(student)
        if not any(p.requires_grad for p in student.parameters()):
            raise ValueError(
                f"student: all weights of this {type(student).__name__} are frozen; train a copy, as "
                "fewstep.flows.warm_start(field) makes it."
            )
        if isinstance(loss, nn.Module):
            raise ValueError(
                f"loss: as a module, this {type(loss).__name__} would be trained with the student; give a "
                "function that calls it, or feature_mse(features)."
            )
        self.loss, self.solver = loss, solver or classical.euler(1)
        self._start = fingerprint(student.state_dict())
        self._pairs: tuple[Tensor, Tensor] | None = None
        self.eval()

    def train(self: _Self, mode: bool = True) -> _Self:
        """Stay in evaluation mode, without dropout, whatever ``mode`` is; the weights still train."""
        super().train(False)
        return self

    def sample(self, x0: Tensor) -> Tensor:
        """Return the student's samples, differentiable."""
        x: Tensor = self.solver.sample(Field(self.flow), x0, differentiable=True)
        return x

    def forward(
        self,
        x1: Tensor,
        x0: Tensor | None = None,
        *,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        return {"loss": self.loss(self.sample(_given(x0)), x1)}

    def check(self, x1: Tensor, x0: Tensor | None, generator: torch.Generator) -> None:
        self(x1, x0, generator=generator)

    def validate(
        self, batches: Sequence[tuple[Tensor, Tensor | None]], generator: torch.Generator
    ) -> dict[str, float]:
        """Return the losses and ``rmse`` to the teacher's samples; the next preview shows the first pairs."""
        self._pairs = _given(batches[0][1])[:_SHOWN], batches[0][0][:_SHOWN]
        errors = ((len(x1), {"rmse": metrics.rmse(self.sample(_given(x0)), x1)}) for x1, x0 in batches)
        return super().validate(batches, generator) | _monitor.means(errors)

    def preview(self, shape: tuple[int, ...], device: torch.device, stem: Path) -> dict[str, float]:
        """Write an image of the teacher's samples in the first row and the student's below."""
        if self._pairs is not None and is_picture(shape):
            x0, x1 = self._pairs
            rows = torch.cat([x1, self.sample(x0)])
            save_pictures(stem.with_name(f"{stem.name}-samples.png"), rows, columns=len(x1))
        return {}

    def describe(self) -> dict[str, Any]:
        objective = {
            "name": type(self).__name__,
            "loss": getattr(self.loss, "__name__", type(self.loss).__name__),
            "solver": self.solver.describe(),
            "start": self._start,
        }
        return {**super().describe(), "objective": objective}


@torch.no_grad()
def sample_error(field: Field, solver: Solver, pairs: PairShards) -> float:
    """Return the RMSE (:func:`fewstep.metrics.rmse`) of a solver's samples against all samples of pairs.

    The pairs are moved to the device of the field's network.
    """
    total = 0.0
    for start in range(0, len(pairs), _BATCH):
        x0, x1 = (x.to(field.device) for x in pairs[range(start, min(start + _BATCH, len(pairs)))])
        total += len(x1) * metrics.rmse(solver.sample(field, x0), x1).item()
    return total / len(pairs)


def _given(x0: Tensor | None) -> Tensor:
    if x0 is None:
        raise ValueError(
            "data: distillation takes pairs of noise and sample, but got samples alone; train on "
            "fewstep.data.PairShards."
        )
    return x0
