"""Samples of pairs by a solver with corrections, with and without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from ..field import Field
from ..lifted import Lifted
from ..networks import Corrector
from ..pairs import Pairs
from ..solver import Solver

__all__ = ["Rollouts", "check_gradients", "normalise"]


class Rollouts:
    """What corrections make of pairs. Where they correct the last state alone, the network is called once.

    Args:
        solver: the table.
        field: the field.
        pairs: the pairs.
        last: whether the last state alone is corrected.
        batch: most samples in a call of the network without gradients.

    Attributes:
        calls: network calls made.
    """

    def __init__(self, solver: Solver, field: Field, pairs: Pairs, last: bool, batch: int) -> None:
        self.solver, self.bound, self.pairs, self.batch = solver, pairs.bind(field), pairs, batch
        self.inputs: list[Tensor] | None = None
        self.calls = 0
        self._lifted: dict[Corrector, Lifted] = {}  # keeps its plan of the rows
        if last:
            parts = [inputs(solver, self.bound.rows(part), pairs.x0[part]) for part in self._parts()]
            self.inputs = [torch.cat(each) for each in zip(*parts, strict=True)]
            self.calls = solver.nfe * len(pairs)

    def __call__(self, corrector: Corrector, index: slice | Tensor) -> Tensor:
        """Return the samples of some pairs, ``(b, ...)``, with gradients to the corrections."""
        if self.inputs is not None:
            x0, *predictions, x = (each[index] for each in self.inputs)
            corrected: Tensor = corrector(self.solver.nfe, x0, predictions, x)
            return corrected
        if corrector not in self._lifted:
            self._lifted[corrector] = Lifted.of(self.solver, corrector)
        lifted, x0 = self._lifted[corrector], self.pairs.x0[index]
        self.calls += self.solver.nfe * len(x0)
        return lifted.sample(self.bound.rows(index), x0, differentiable=True, check=False)

    @torch.no_grad()
    def all(self, corrector: Corrector) -> Tensor:
        """Return the samples of all pairs, without gradients."""
        return torch.cat([self(corrector, part) for part in self._parts()])

    def _parts(self) -> list[slice]:
        return [slice(k, k + self.batch) for k in range(0, len(self.pairs), self.batch)]


def inputs(solver: Solver, field: Field, x0: Tensor) -> list[Tensor]:
    """Return what corrections of the last state read: the first state, all predictions, and that state."""
    states, predictions = _record(solver, field, x0)
    return [states[0], *predictions, states[-1]]


def normalise(corrector: Corrector, solver: Solver, field: Field, pairs: Pairs) -> None:
    """Set the scales of the corrections from some pairs."""
    states, predictions = _record(solver, pairs.bind(field), pairs.x0)
    scale = (pairs.x1 - states[-1]).square().mean().sqrt()
    for i in range(1, solver.nfe + 1):
        if corrector.corrects(i):
            corrector.normalise(i, states[0], predictions[:i], states[i], scale)


@torch.no_grad()
def _record(solver: Solver, field: Field, x0: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return all states of a table, and the predictions that it reads, as corrections are given them."""
    silent = Lifted.of(solver, Corrector(x0.shape[1:], solver.nfe, [solver.nfe], width=1, blocks=0))
    states: list[Tensor] = []
    predictions: list[Tensor] = []

    def keep(j: int, x: Tensor, prediction: Tensor) -> None:
        states.append(x)
        predictions.append(prediction)

    states.append(silent.sample(field, x0, callback=keep))
    return states, predictions


def check_gradients(solver: Solver, field: Field, pairs: Pairs) -> None:
    """Raise a ``ValueError`` unless the network passes gradients to its state."""
    few = slice(0, 2)
    x = field.initial_state(pairs.x0[few]).requires_grad_()
    t = solver.times[-1]
    with torch.enable_grad():
        found = pairs.bind(field).rows(few)(x, t)
    if not found.requires_grad:
        raise ValueError(
            "lift: states='every' is trained with gradients through the network, and this one passes none to "
            "its state; pass states='last', which only calls it."
        )
