"""Solvers: immutable tables of numbers, and sampling with them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, overload

import torch
from torch import Tensor

from . import _fitted_for, _solver_file
from ._execute import Readied, execute, explain
from ._hashing import fingerprint
from ._path import Path, check_conditions, check_noise
from ._predictions import Prediction, check_prediction
from ._progress import progress_bar
from ._table import Rows, Table, check_numbers, lower_triangle, square
from .field import Field
from .schedules import Schedule

__all__ = ["Path", "Solver"]

#: ``callback(j, x_j, prediction)``, after network call ``j``.
Callback = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Solver:
    """A table of numbers that turns noise into samples with ``N`` network calls.

    Call ``j`` evaluates ``u_j`` at ``(x_j, times[j])``, and

        ``x_i = sum_{j<i} C[i-1][j] x_j + sum_{j<i} D[i-1][j] u_j``,   ``i = 1 .. N``,

    where the last state ``x_N`` is the sample. These numbers define the solver.

    ``midpoint(steps=1)`` has ``times = (0, 1/2)``, ``C = ((1,), (1, 0))``, ``D = ((1/2,), (0, 1))`` and
    ``points = (0, 2)``. On ``dx/dt = -x`` from ``x_0 = 1`` it makes two calls:

        ``u_0 = -1``,       ``x_1 = 1 x_0 + 1/2 u_0 = 0.5``,            a stage at ``t = 1/2``;
        ``u_1 = -0.5``,     ``x_2 = 1 x_0 + 0 x_1 + 0 u_0 + 1 u_1 = 0.5``,      for ``exp(-1) = 0.37``.

    Args:
        times: times of the network calls, ``N`` numbers in [0, 1].
        C: coefficients of the states; row ``i - 1`` has ``i`` numbers.
        D: coefficients of the calls, likewise.
        points: indices of the states that lie on the trajectory (the others are stages), from 0 to N.
        end: time of the sample, normally 1.
        name: name in reports.
        prediction: kind of the ``u_j``: ``"velocity"``, or another prediction of ``schedule``.
        schedule: schedule of the table, if ``prediction`` is not the velocity.
        family: the family and theta that the table was built from.
        fitted_for: the field it was fitted to, from :meth:`Field.describe`; further fields are a list under
            ``"also"``.
        protocol: how it was fitted.
        scores: errors of the fit.
        citation: works to cite.

    Raises:
        ValueError: when the numbers are not a valid solver.
    """

    times: tuple[float, ...]
    C: Rows
    D: Rows
    points: tuple[int, ...]
    end: float = 1.0
    name: str = "solver"
    prediction: Prediction = "velocity"
    schedule: Schedule | None = None
    family: Mapping[str, Any] | None = field(default=None, hash=False)
    fitted_for: Mapping[str, Any] | None = field(default=None, hash=False)
    protocol: Mapping[str, Any] | None = field(default=None, hash=False)
    scores: Mapping[str, Any] | None = field(default=None, hash=False)
    citation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_numbers(self.times, self.C, self.D, self.points, self.end)
        check_prediction(self.prediction)
        if self.prediction != "velocity" and self.schedule is None:
            raise ValueError(
                f"Solver: schedule: a table of {self.prediction} predictions holds for one schedule and must "
                "name it."
            )

    @property
    def nfe(self) -> int:
        """Number of network calls, exact by construction."""
        return len(self.times)

    @property
    def point_times(self) -> tuple[float, ...]:
        """Times of the trajectory points."""
        return tuple((*self.times, self.end)[i] for i in self.points)

    @overload
    def sample(
        self, field: Field | Callable[..., Tensor], x0: Tensor, *, trajectory: Literal[False] = ...,
        progress: bool = ..., differentiable: bool = ..., callback: Callback | None = ..., **conditions: Any,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def sample(
        self, field: Field | Callable[..., Tensor], x0: Tensor, *, trajectory: Literal[True],
        progress: bool = ..., differentiable: bool = ..., callback: Callback | None = ..., **conditions: Any,
    ) -> Path: ...  # fmt: skip

    def sample(
        self,
        field: Field | Callable[..., Tensor],
        x0: Tensor,
        *,
        trajectory: bool = False,
        progress: bool = False,
        differentiable: bool = False,
        callback: Callback | None = None,
        **conditions: Any,
    ) -> Tensor | Path:
        """Map noise to samples with exactly :attr:`nfe` calls of the field.

        Args:
            field: a :class:`~fewstep.Field`, or a plain callable ``velocity(x, t)``.
            x0: standard normal noise, ``(B, ...)``, on the device of the network. States have its dtype,
                or float32 if that is wider.
            trajectory: return a :class:`Path` instead of the samples.
            progress: show a progress bar of the calls.
            differentiable: let gradients flow to ``x0`` and the network. Samples are then not checked for
                NaN, which would make every training step wait for the device.
            callback: called as ``callback(j, x_j, prediction)`` after network call ``j``; must not
                change either tensor.
            **conditions: passed to the network untouched.

        Returns:
            The samples, a tensor like ``x0``, or a :class:`Path`.

        At an end of time where the network's prediction does not determine the one that the table reads, the
        field's estimate of the latter, whose limit is known, is used: see :meth:`Field.predict_as`.

        Raises:
            ValueError: when ``x0`` is not a batch of noise, or the table is for another schedule than the
                field's.
            TypeError: when the name of a condition is close to that of an argument: ``trajectry=True``.
            FloatingPointError: when the network returns NaN or infinity; gives the call and time.
        """
        field = field if isinstance(field, Field) else Field(field)
        check_noise(x0)
        check_conditions(conditions)
        readied = self._readied(field.prediction, field.schedule)
        self._warn_of_mismatch(field)

        def start() -> Tensor:  # in half precision the sums would lose small steps
            return field.initial_state(x0.to(torch.promote_types(x0.dtype, torch.float32)))

        def call(j: int, x: Tensor, t: float) -> Tensor:
            if j in readied.estimated:
                return field.predict_as(self.prediction, x, t, **conditions).to(x.dtype)
            return field.predict(x, t, **conditions).to(x.dtype)

        def reported(j: int, x: Tensor, t: float) -> Tensor:
            m = call(j, x, t)
            bar.update()
            if callback is not None:
                callback(j, x, m)
            return m

        states, predictions = {0: start()}, dict[int, Tensor]()
        rows = readied.recorded if trajectory else readied.rows
        bar = progress_bar(progress, total=self.nfe, unit="call", desc=self.name)
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()), bar:
            x1 = execute(reported, self.times, rows, states, predictions).to(x0.dtype)
        if not (differentiable or torch.isfinite(x1).all()):
            explain(call, self.times, readied.rows, x0, start, self.name)
        if not trajectory:
            return x1
        return Path(
            x1,
            torch.stack([states[i] for i in self.points]),
            torch.tensor(self.point_times, dtype=torch.float64),
            torch.stack([predictions[j] for j in range(self.nfe)]),
            torch.tensor(self.times, dtype=torch.float64),
        )

    def mismatch(self, field: Field) -> str | None:
        """Describe in one sentence how ``field`` differs from the fields the solver was fitted for.

        Compares the names of the models, the schedules and the guidance scales. A model without its own name,
        such as a plain function, matches every model. ``None`` if nothing differs.
        """
        if self.fitted_for is None:
            return None
        found = _fitted_for.differences(self.fitted_for, field.describe())
        return None if found is None else f"solver {self.name!r} was fitted for {found}"

    def unroll(self) -> Solver:
        """Return the same solver in reduced form ``x_i = a_i x_0 + sum_j b_ij u_j``."""
        return self._with_table(Table.from_reduced(self.table.unroll()))

    def to(self, prediction: Prediction, schedule: Schedule | None = None) -> Solver:
        """Return the same solver for a network with another prediction.

        Args:
            prediction: the prediction of the network.
            schedule: the schedule of the network.

        Raises:
            ValueError: when this table holds for another schedule, or calls the network at a time
                at which that prediction does not determine this table's.
        """
        if schedule is not None:
            self._check_schedule(schedule)
        if prediction == self.prediction:
            return self
        schedule = self.schedule or schedule
        if schedule is None:
            raise ValueError(f"solver {self.name!r}: to({prediction!r}) needs schedule=..., the network's.")
        table = self.table.convert(schedule, self.prediction, prediction)
        self._check_calls(table, prediction, schedule, "choose times that stop short of that end")
        return replace(self._with_table(table), prediction=prediction, schedule=schedule)

    def reschedule(self, source: Schedule, target: Schedule) -> Solver:
        """Return this solver, of velocities in the coordinates of one schedule, for networks of another.

        On a field of ``target`` it makes the steps that this solver makes on ``field.reschedule(source)``
        (Shaul et al., ICLR 2024, Theorem 2.3): ``heun(grid=...).reschedule(VE(rho=1), schedule)`` is Heun's
        method in the noise level ``sigma / alpha``, whatever the network's own schedule.

        Args:
            source: the schedule in whose coordinates this solver steps.
            target: the schedule of the networks.

        Returns:
            A table of data predictions for ``target``.

        Raises:
            ValueError: when this is not a table of velocities, or calls the network in pure data or at a
                signal-to-noise ratio that ``target`` does not have.
        """
        if self.prediction != "velocity":
            raise ValueError(
                f"solver {self.name!r}: reschedule needs a table of velocities, not of {self.prediction} "
                "predictions; build it with schedule=..., or convert it with to('velocity')."
            )
        table, end = self.table.reschedule(source, target, self.end)
        self._check_calls(table, "data", source, "choose a grid that stops short of pure data")
        fitted_for = self.fitted_for and self.fitted_for.get(
            "of", {**self.fitted_for, "schedule": target.to_dict()}
        )
        made = self._with_table(table)
        return replace(made, end=end, prediction="data", schedule=target, fitted_for=fitted_for)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that :meth:`save` writes."""
        return _solver_file.content(self._arguments)

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify the solver: its name, calls, and a hash of its numbers."""
        numbers = [*self.table, self.points, self.end, self.prediction, self.schedule]
        return {"name": self.name, "nfe": self.nfe, "fingerprint": fingerprint(numbers)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the solver as a readable JSON file; numbers are exact."""
        _solver_file.write(path, self._arguments)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Solver:
        """Read a solver file.

        Raises:
            ValueError: when the file is truncated, newer than this version, or not a solver.
        """
        return _solver_file.read(path, cls)

    @classmethod
    def from_table(cls, table: Table, points: tuple[int, ...], **facts: Any) -> Solver:
        """Return the solver with the numbers of a tensor table, without gradients."""
        return cls(**_numbers(table), points=tuple(points), **facts)

    @cached_property
    def table(self) -> Table:
        """The numbers as float64 tensors."""
        return Table(torch.tensor(self.times, dtype=torch.float64), square(self.C), square(self.D))

    @property
    def _arguments(self) -> dict[str, Any]:
        return {argument.name: getattr(self, argument.name) for argument in fields(self)}

    def _readied(self, prediction: Prediction, schedule: Schedule) -> Readied:
        """Return the table prepared for networks of one kind, from a cache."""
        self._check_schedule(schedule)
        key = (prediction, schedule)
        if key not in self._cache:
            table, estimated = self.table.convert_where_finite(schedule, self.prediction, prediction)
            self._cache[key] = Readied.of(
                lower_triangle(table.C), lower_triangle(table.D), self.points, estimated
            )
        return self._cache[key]

    @cached_property
    def _cache(self) -> dict[tuple[Prediction, Schedule], Readied]:
        return {}

    def _warn_of_mismatch(self, field: Field) -> None:
        found = self.mismatch(field)
        if found is not None and found not in self._warned:
            self._warned.add(found)
            advice = "fit again for it, or silence this with warnings.filterwarnings('ignore', 'solver')"
            warnings.warn(f"{found}; {advice}.", stacklevel=3)

    @cached_property
    def _warned(self) -> set[str]:
        return set()

    def _check_calls(self, table: Table, given: str, schedule: Schedule, remedy: str) -> None:
        undefined = (~table.finite_calls()).nonzero()
        if len(undefined):
            j = int(undefined[0])
            raise ValueError(
                f"solver {self.name!r} calls the network at t = {self.times[j]:g} (call {j}), where a "
                f"{given} prediction under {schedule!r} leaves the {self.prediction} undefined; {remedy}."
            )

    def _check_schedule(self, schedule: Schedule) -> None:
        if self.schedule not in (None, schedule):
            raise ValueError(
                f"solver {self.name!r} is a table of {self.prediction} predictions for {self.schedule!r}, "
                f"but the field has {schedule!r}; build it again with schedule=field.schedule."
            )

    def _with_table(self, table: Table) -> Solver:
        return replace(self, **_numbers(table))


def _numbers(table: Table) -> dict[str, Any]:
    """Return the numbers of a table as fields of a solver."""
    times = tuple(table.times.tolist())
    return {"times": times, "C": lower_triangle(table.C), "D": lower_triangle(table.D)}
