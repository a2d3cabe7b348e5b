"""Solvers: immutable tables of numbers, and sampling with them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _solver_file
from ._execute import Row, execute, plan
from ._predictions import check_prediction
from ._progress import progress_bar
from ._table import Table
from .field import Field
from .schedules import Schedule

__all__ = ["Path", "Solver", "check_noise"]


class Path(NamedTuple):
    """A recorded sampling.

    Shape:
        ``x1``: like the noise, ``(B, ...)``; ``states``: ``(P, B, ...)``, the trajectory points, noise
        first; ``times``: ``(P,)``, their times; ``predictions``: ``(N, B, ...)``, what the network
        predicted at each call; ``call_times``: ``(N,)``.
    """

    x1: Tensor
    states: Tensor
    times: Tensor
    predictions: Tensor
    call_times: Tensor


@dataclass(frozen=True)
class Solver:
    """A table of numbers that turns noise into samples with ``N`` network calls.

    Call ``j`` evaluates ``u_j`` at ``(x_j, times[j])``, and

        ``x_i = sum_{j<i} C[i-1][j] x_j + sum_{j<i} D[i-1][j] u_j``,   ``i = 1 .. N``,

    whose last state ``x_N`` is the sample. Everything else follows from these numbers.

    Args:
        times: when the network is called, ``N`` numbers in [0, 1].
        C: coefficients of the states; row ``i - 1`` has ``i`` numbers.
        D: coefficients of the calls, likewise.
        points: indices of the states that lie on the trajectory (the others are stages), from 0 to N.
        end: the time that the sample is at, normally 1.
        name: for people.
        prediction: what the ``u_j`` are: ``"velocity"``, or another prediction of ``schedule``.
        schedule: the schedule a table for another prediction than velocity holds for.
        family: the family and theta that the table was built from.
        fitted_for: the field it was fitted to.
        protocol: how it was fitted.
        scores: what it reached there.
        citation: what to cite.

    Raises:
        ValueError: when the numbers do not make a solver.
    """

    times: tuple[float, ...]
    C: tuple[tuple[float, ...], ...]
    D: tuple[tuple[float, ...], ...]
    points: tuple[int, ...]
    end: float = 1.0
    name: str = "solver"
    prediction: str = "velocity"
    schedule: Schedule | None = None
    family: Mapping[str, Any] | None = field(default=None, hash=False)
    fitted_for: Mapping[str, Any] | None = field(default=None, hash=False)
    protocol: Mapping[str, Any] | None = field(default=None, hash=False)
    scores: Mapping[str, Any] | None = field(default=None, hash=False)
    citation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        N = len(self.times)
        _check(N > 0, "times: a solver needs at least one call")
        for label, rows in (("C", self.C), ("D", self.D)):
            shape = [len(row) for row in rows]
            fits = shape == list(range(1, N + 1))
            _check(fits, f"{label}: {N} calls need rows of 1 to {N} numbers, not {shape}")
            for i, row in enumerate(rows):
                _check(all(map(math.isfinite, row)), f"{label}: row {i} must be finite, not {list(row)}")
        _check(
            all(0 <= t <= 1 for t in (*self.times, self.end)),
            f"times: must lie in [0, 1], not {[*self.times, self.end]}",
        )
        _check(
            len(self.points) > 1
            and self.points[0] == 0
            and self.points[-1] == N
            and all(i < j for i, j in pairwise(self.points)),
            f"points: must increase from 0 to {N}, not {list(self.points)}",
        )
        at = self.point_times
        _check(
            all(s < t for s, t in pairwise(at)),
            f"times: must increase strictly from point to point, not {list(at)}",
        )
        check_prediction(self.prediction)
        _check(
            self.prediction == "velocity" or self.schedule is not None,
            f"schedule: a table of {self.prediction} predictions holds for one schedule and must name it",
        )

    @property
    def nfe(self) -> int:
        """Number of network calls: exact, by construction."""
        return len(self.times)

    @property
    def point_times(self) -> tuple[float, ...]:
        """Times of the trajectory points."""
        return tuple((*self.times, self.end)[i] for i in self.points)

    def sample(
        self,
        field: Field | Callable[..., Tensor],
        x0: Tensor,
        *,
        trajectory: bool = False,
        progress: bool = False,
        differentiable: bool = False,
        callback: Callable[[int, Tensor, Tensor], None] | None = None,
        **conditions: Any,
    ) -> Any:
        """Turn noise into samples with exactly :attr:`nfe` calls of the field.

        Args:
            field: a :class:`~fewstep.Field`, or a plain callable ``velocity(x, t)``.
            x0: standard normal noise, ``(B, ...)``; its dtype and device are those of the state.
            trajectory: return a :class:`Path` instead of the samples.
            progress: show a progress bar of the calls.
            differentiable: let gradients flow to ``x0`` and the network. The samples are then not looked at
                for NaN, which would make every training step wait for the device.
            callback: called as ``callback(j, x_j, prediction)`` after network call ``j``; must not
                change either tensor.
            **conditions: passed to the network untouched.

        Returns:
            The samples, a tensor like ``x0``, or a :class:`Path`.

        Raises:
            ValueError: when ``x0`` does not fit the field, or the table the field's schedule.
            FloatingPointError: when the network returns NaN or infinity; names the call and time.
        """
        field = field if isinstance(field, Field) else Field(field)
        check_noise(x0, field)
        table = self.to(field.prediction, field.schedule)
        states: dict[int, Tensor] = {0: field.initial_state(x0)}
        predictions: dict[int, Tensor] = {}
        bar = progress_bar(progress, total=self.nfe, unit="call", desc=self.name)

        def call(j: int, x: Tensor, t: float) -> Tensor:
            m = field.predict(x, t, **conditions).to(x.dtype)
            bar.update()
            if callback is not None:
                callback(j, x, m)
            return m

        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()), bar:
            rows = table._recorded_rows if trajectory else table._rows
            x1 = execute(call, table.times, rows, states, predictions)
        if not (differentiable or torch.isfinite(x1).all()):
            self._explain(field, x0, conditions)
        if not trajectory:
            return x1
        return Path(
            x1,
            torch.stack([states[i] for i in self.points]),
            torch.tensor(self.point_times, dtype=torch.float64),
            torch.stack([predictions[j] for j in range(self.nfe)]),
            torch.tensor(self.times, dtype=torch.float64),
        )

    def unroll(self) -> Solver:
        """The same solver in reduced form ``x_i = a_i x_0 + sum_j b_ij u_j``."""
        return self._with_table(Table.from_reduced(self.table.unroll()))

    def to(self, prediction: str, schedule: Schedule | None = None) -> Solver:
        """The same solver for a network that predicts something else.

        Args:
            prediction: what the network predicts.
            schedule: the schedule of that network.

        Raises:
            ValueError: when this table holds for another schedule, or calls the network at a time
                at which its prediction leaves the velocity undefined.
        """
        if self.schedule is not None and schedule is not None and schedule != self.schedule:
            raise ValueError(
                f"solver {self.name!r} is a table of {self.prediction} predictions for {self.schedule!r}, "
                f"but the field has {schedule!r}; build it again with schedule=field.schedule."
            )
        if prediction == self.prediction:
            return self
        schedule = self.schedule or schedule
        if schedule is None:
            raise ValueError(f"solver {self.name!r}: to({prediction!r}) needs schedule=..., the network's.")
        table = self.table.convert(schedule, self.prediction, prediction)
        bad = ~(table.C.isfinite().all(dim=0) & table.D.isfinite().all(dim=0))
        if bad.any():
            j = int(bad.nonzero()[0])
            raise ValueError(
                f"solver {self.name!r} calls the network at t = {self.times[j]:g} (call {j}), where a "
                f"{prediction} prediction under {schedule!r} leaves the {self.prediction} undefined; "
                "choose times that stop short of that end."
            )
        return replace(self._with_table(table), prediction=prediction, schedule=schedule)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the solver as a JSON file that a person can read; numbers keep every bit."""
        _solver_file.write(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Solver:
        """Read a solver file.

        Raises:
            ValueError: when the file is truncated, newer than this version, or not a solver.
        """
        return _solver_file.read(path, cls)

    @classmethod
    def from_table(cls, table: Table, points: tuple[int, ...], **facts: Any) -> Solver:
        """Freeze a tensor table into a solver."""
        return cls(
            times=tuple(table.times.tolist()),
            C=_lower_triangle(table.C),
            D=_lower_triangle(table.D),
            points=tuple(points),
            **facts,
        )

    @cached_property
    def table(self) -> Table:
        """The numbers as float64 tensors."""
        return Table(torch.tensor(self.times, dtype=torch.float64), _square(self.C), _square(self.D))

    @cached_property
    def _rows(self) -> list[Row]:
        return plan(self.C, self.D)

    @cached_property
    def _recorded_rows(self) -> list[Row]:
        return plan(self.C, self.D, keep_states=self.points, keep_predictions=True)

    def _with_table(self, table: Table) -> Solver:
        return replace(
            self,
            times=tuple(table.times.tolist()),
            C=_lower_triangle(table.C),
            D=_lower_triangle(table.D),
        )

    def _explain(self, field: Field, x0: Tensor, conditions: Mapping[str, Any]) -> None:
        """Repeat a sampling that ended in NaN, look at every call, and raise."""
        if not torch.isfinite(x0).all():
            raise ValueError("x0: the noise itself holds NaN or infinity.")

        def call(j: int, x: Tensor, t: float) -> Tensor:
            m = field.predict(x, t, **conditions)
            if not torch.isfinite(m).all():
                state = "finite" if torch.isfinite(x).all() else "already infinite"
                raise FloatingPointError(
                    f"the network returned NaN or infinity at call {j} of {self.nfe}, t = {t:g}, from a "
                    f"{state} state of magnitude {x.abs().max():.3g}; look at the model there, or use a "
                    "solver that does not call it at that time."
                )
            return m.to(x.dtype)

        table = self.to(field.prediction, field.schedule)
        with torch.no_grad():
            execute(call, table.times, table._rows, {0: field.initial_state(x0)}, {})
        raise FloatingPointError(
            f"sampling with {self.name!r} overflowed {x0.dtype} although every network output was finite; "
            "use a wider dtype for x0, or a solver with smaller coefficients."
        )


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(f"Solver: {problem}.")


def check_noise(x0: Tensor, field: Field) -> None:
    """Raise a ``ValueError`` for a noise that the field cannot start from."""
    if not isinstance(x0, Tensor) or not x0.is_floating_point() or x0.ndim < 1:
        got = f"{x0.dtype} of shape {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
        raise ValueError(f"x0: must be a floating-point tensor of shape (B, ...), not {got}.")
    if field.shape is not None and tuple(x0.shape[1:]) != field.shape:
        raise ValueError(
            f"x0: has shape {tuple(x0.shape)}, but this field samples shape {field.shape}; pass noise "
            f"of shape {('B', *field.shape)}."
        )


def _lower_triangle(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row[: i + 1]) for i, row in enumerate(matrix.tolist()))


def _square(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    N = len(rows)
    return torch.tensor([[*row, *[0.0] * (N - len(row))] for row in rows], dtype=torch.float64)
