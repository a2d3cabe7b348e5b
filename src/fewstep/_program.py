"""A solver and a field made ready for sampling: everything that depends on time alone is worked out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ._broadcast import affine
from ._execute import Row, execute
from ._field import FieldBase
from ._network import state_type
from ._noises import Noises, with_noises

if TYPE_CHECKING:
    from ._sampling import Sampling

__all__ = ["Program"]

#: ``callback(j, x_j, prediction)``, after network call ``j``.
Callback = Callable[[int, Tensor, Tensor], None]


class Program:
    """Samples of a field by a solver, for noises of one type, device and number of dimensions.

    A run does tensor operations and network calls alone: it reads nothing from the device, and
    ``torch.compile`` and CUDA graphs take it whole.

    Args:
        solver: the solver.
        field: the field.
        like: a tensor with the type, device and dimensions of the noises.

    Raises:
        ValueError: when the table is for another schedule than the field's.
        FloatingPointError: when a number of the table is beyond the type of the states.
    """

    def __init__(self, solver: Sampling, field: FieldBase, like: Tensor) -> None:
        readied = solver.readied(field.prediction, field.schedule)
        self.name, self.times, self.dtype = solver.name, solver.times, state_type(like.dtype)
        if readied.largest > torch.finfo(self.dtype).max:
            raise self._overflow(f": its coefficient {readied.largest:.3g} is beyond {self.dtype}")
        self.rows, self.recorded, self.noisy = readied.rows, readied.recorded, readied.noisy
        self.calls = [
            field.at(t, like, solver.prediction if j in readied.estimated else None)
            for j, t in enumerate(solver.times)
        ]
        self.law = field.initial_law(like)
        self.correct = solver.correction(like.device)

    def run(
        self,
        x0: Tensor,
        conditions: Mapping[str, Any],
        rows: Sequence[Row] | None = None,
        states: dict[int, Tensor] | None = None,
        predictions: dict[int, Tensor] | None = None,
        report: Callback | None = None,
        noises: Noises | None = None,
    ) -> Tensor:
        """Return the samples of noises ``x0``, ``(B, ...)``, like them.

        Args:
            x0: the noises.
            conditions: keyword arguments of the network.
            rows: those of the table by default.
            states: receives those that no later row removes.
            predictions: likewise.
            report: called after each network call.
            noises: those that rows add.
        """

        def call(j: int, x: Tensor, t: float) -> Tensor:
            m = self.calls[j](x, conditions).to(x.dtype)
            if report is not None:
                report(j, x, m)
            return m

        states, predictions = ({} if d is None else d for d in (states, predictions))
        states[0] = affine(x0.to(self.dtype), *self.law)  # in half precision the sums would lose small steps
        rows = self.rows if rows is None else rows
        asked = call if noises is None else with_noises(call, noises, self.noisy, predictions)
        return execute(asked, self.times, rows, states, predictions, correct=self.correct).to(x0.dtype)

    def explain(self, x0: Tensor, conditions: Mapping[str, Any], noises: Noises | None = None) -> NoReturn:
        """Repeat a sampling that ended in NaN or infinity, check every call, and raise.

        Raises:
            ValueError: when the noise ``x0`` is not finite.
            FloatingPointError: at the first call whose result is not finite, or when all results are finite.
        """
        if not torch.isfinite(x0).all():
            raise ValueError("x0: the noise itself holds NaN or infinity.")

        def watch(j: int, x: Tensor, m: Tensor) -> None:
            where = f"at call {j} of {len(self.times)}, t = {self.times[j]:g}"
            if not torch.isfinite(x).all():
                raise self._overflow(f" {where}: its state is infinite in {self.dtype}")
            if not torch.isfinite(m).all():
                raise FloatingPointError(
                    f"the network returned NaN or infinity {where}, from a finite state of magnitude "
                    f"{x.abs().max():.3g}; look at the model there, or use a solver that does not call it at "
                    "that time."
                )

        with torch.no_grad():
            self.run(x0, conditions, report=watch, noises=noises)
        raise self._overflow(f" after the last call: its sample is infinite in {x0.dtype}")

    def _overflow(self, where: str) -> FloatingPointError:
        return FloatingPointError(
            f"solver {self.name!r} overflows{where}; use a wider dtype for x0, or a solver with "
            "smaller coefficients."
        )
