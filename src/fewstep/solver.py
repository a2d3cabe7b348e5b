"""Solvers: immutable tables of numbers, and sampling with them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path as FilePath
from typing import Any, ClassVar

from . import _solver_file
from ._card import fitted_card
from ._hashing import fingerprint
from ._hub import Shared
from ._hub_files import SOLVER
from ._path import Path
from ._predictions import Prediction, check_prediction
from ._sampling import Sampling
from ._table import Rows, Table, check_numbers, lower_triangle
from .schedules import Schedule

__all__ = ["Path", "Solver"]


@dataclass(frozen=True)
class Solver(Sampling, Shared):
    """A table of numbers that turns noise into samples with ``N`` network calls.

    Call ``j`` evaluates ``u_j`` at ``(x_j, times[j])``, and

        ``x_i = sum_{j<i} C[i-1][j] x_j + sum_{j<i} D[i-1][j] u_j``,   ``i = 1 .. N``,

    where the last state ``x_N`` is the sample. These numbers define the solver. A solver of an SDE adds
    ``S[i-1] xi_i`` to ``x_i``, with ``xi_i`` standard normal noise, as those of
    :mod:`fewstep.classical.stochastic` do.

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
        S: coefficients of the noise that each row adds, ``N`` numbers, or none.
        name: name in reports.
        prediction: kind of the ``u_j``: ``"velocity"``, or another prediction of ``schedule``.
        schedule: schedule of the table, if ``prediction`` is not the velocity.
        family: the family and theta that the table was built from.
        fitted_for: the field it was fitted to, from :meth:`Field.describe`; further fields are a list under
            ``"also"``, names of the network's conditions one under ``"conditions"``.
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
    S: tuple[float, ...] = ()
    name: str = "solver"
    prediction: Prediction = "velocity"
    schedule: Schedule | None = None
    family: Mapping[str, Any] | None = field(default=None, hash=False)
    fitted_for: Mapping[str, Any] | None = field(default=None, hash=False)
    protocol: Mapping[str, Any] | None = field(default=None, hash=False)
    scores: Mapping[str, Any] | None = field(default=None, hash=False)
    citation: tuple[str, ...] = ()

    _FILE: ClassVar[str] = SOLVER

    def __post_init__(self) -> None:
        check_numbers(self.times, self.C, self.D, self.points, self.end, self.S)
        if not self.noises:
            object.__setattr__(self, "S", ())
        check_prediction(self.prediction)
        if self.prediction != "velocity" and self.schedule is None:
            raise ValueError(
                f"Solver: schedule: a table of {self.prediction} predictions holds for one schedule and must "
                "name it."
            )

    def unroll(self) -> Solver:
        """Return the same solver in reduced form ``x_i = a_i x_0 + sum_j b_ij u_j``.

        Raises:
            ValueError: when the solver adds noise.
        """
        self.check_ode("unroll")
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
        made = {**_numbers(table), "end": end}
        return replace(self, **made, prediction="data", schedule=target, fitted_for=fitted_for)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that :meth:`save` writes."""
        return _solver_file.content(self._arguments)

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify the solver: its name, calls, and a hash of its numbers."""
        numbers = [*self.table[:3], self.points, self.end, self.prediction, self.schedule, *self.S]
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

    @property
    def _arguments(self) -> dict[str, Any]:
        return {argument.name: getattr(self, argument.name) for argument in fields(self)}

    def _write(self, path: FilePath, facts: dict[str, Any]) -> None:
        self.save(path)

    @classmethod
    def _read(cls, path: FilePath) -> Solver:
        return cls.load(path)

    def _body(self, name: str, facts: dict[str, Any]) -> str:
        scores = self.scores or {}
        row = {**scores, "nfe": self.nfe, "errors": scores.get("validation_rmse")}
        load = f"solver = fs.{type(self).__name__}.from_pretrained({json.dumps(name)})"
        return fitted_card(name, (SOLVER, *self._MORE), load, [self.nfe], self, self.protocol or {}, [row])

    def _check_calls(self, table: Table, given: str, schedule: Schedule, remedy: str) -> None:
        undefined = (~table.finite_calls()).nonzero()
        if len(undefined):
            j = int(undefined[0])
            raise ValueError(
                f"solver {self.name!r} calls the network at t = {self.times[j]:g} (call {j}), where a "
                f"{given} prediction under {schedule!r} leaves the {self.prediction} undefined; {remedy}."
            )

    def _with_table(self, table: Table) -> Solver:
        return replace(self, **_numbers(table))


def _numbers(table: Table) -> dict[str, Any]:
    """Return the numbers of a table as fields of a solver."""
    times = tuple(table.times.tolist())
    S = tuple(table.S.tolist()) if table.S.ndim else ()
    return {"times": times, "C": lower_triangle(table.C), "D": lower_triangle(table.D), "S": S}
