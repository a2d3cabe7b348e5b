"""Solvers: immutable tables of numbers, and sampling with them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import _solver_file
from ._channels import check_channels
from ._hashing import fingerprint
from ._predictions import Prediction, check_prediction
from ._sampling import Path, Readied, check_noise, ready, sample
from ._table import Number, Rows, Table, frozen, lower_triangle
from .field import Field
from .schedules import Schedule

__all__ = ["Path", "Solver"]


@dataclass(frozen=True)
class Solver:
    """A table of numbers that turns noise into samples with ``N`` network calls.

    Call ``j`` evaluates ``u_j`` at ``(x_j, times[j])``, and

        ``x_i = sum_{j<i} C[i-1][j] x_j + sum_{j<i} D[i-1][j] u_j + offsets[i-1]``,   ``i = 1 .. N``,

    whose last state ``x_N`` is the sample. Everything else follows from these numbers. Instead of a number, a
    coefficient or an offset may be a tuple of them, one for each channel (dimension 1 of the state).

    Args:
        times: when the network is called, ``N`` numbers in [0, 1].
        C: coefficients of the states; row ``i - 1`` has ``i`` numbers. All of C and D have channels, or none.
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
        offsets: what is added to each state, ``N`` numbers; or none of them, as in every classical solver.

    Raises:
        ValueError: when the numbers do not make a solver.
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
    offsets: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        N = len(self.times)
        _check(N > 0, "times: a solver needs at least one call")
        for label, rows in (("C", self.C), ("D", self.D)):
            shape = [len(row) for row in rows]
            fits = shape == list(range(1, N + 1))
            _check(fits, f"{label}: {N} calls need rows of 1 to {N} numbers, not {shape}")
            for i, row in enumerate(rows):
                _check(all(map(_finite, row)), f"{label}: row {i} must be finite, not {list(row)}")
        fits = len(self.offsets) in (0, N) and all(map(_finite, self.offsets))
        _check(fits, f"offsets: must be {N} finite numbers or none, not {list(self.offsets)}")
        own = {_channels(c) for rows in (self.C, self.D) for row in rows for c in row}
        others = {_channels(c) for c in self.offsets}
        counts = (own | others) - {None}
        _check(
            len(own) == 1 and len(others) < 2 and len(counts) < 2 and 0 not in counts,
            "C, D and offsets: must have single numbers, or one for each of as many channels, throughout",
        )
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

    @cached_property
    def channels(self) -> int | None:
        """How many channels have numbers of their own; ``None`` where all share theirs."""
        return self.table.channels

    def channel(self, k: int) -> Solver:
        """The solver of one channel, whose numbers then serve any state.

        Raises:
            ValueError: when there are no channels, or not so many.
        """
        if self.channels is None or not 0 <= k < self.channels:
            has = "no channels" if self.channels is None else f"channels 0 to {self.channels - 1}"
            raise ValueError(f"solver {self.name!r}: channel must be one that it has, not {k}; it has {has}.")
        return self._with_table(self.table.channel(k))

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

        At an end of time where the network's prediction leaves undefined what the table reads, the field's
        estimate of that is taken, whose limit is known: see :meth:`Field.predict_as`.

        Raises:
            ValueError: when ``x0`` does not fit the field or the solver's channels, or the table the field's
                schedule.
            FloatingPointError: when the network returns NaN or infinity; names the call and time.
        """
        field = field if isinstance(field, Field) else Field(field)
        check_noise(x0, field)
        check_channels(self.channels, x0, f"solver {self.name!r}")
        return sample(
            self._readied(field.prediction, field.schedule),
            field,
            x0,
            self.points,
            self.point_times,
            name=self.name,
            trajectory=trajectory,
            progress=progress,
            differentiable=differentiable,
            callback=callback,
            conditions=conditions,
        )

    def unroll(self) -> Solver:
        """The same solver in reduced form ``x_i = a_i x_0 + sum_j b_ij u_j + e_i``."""
        return self._with_table(Table.from_reduced(self.table.unroll()))

    def to(self, prediction: Prediction, schedule: Schedule | None = None) -> Solver:
        """The same solver for a network that predicts something else.

        Args:
            prediction: what the network predicts.
            schedule: the schedule of that network.

        Raises:
            ValueError: when this table holds for another schedule, or calls the network at a time
                at which its prediction leaves the velocity undefined.
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
        """This solver of velocities in the coordinates of one schedule, for networks of another.

        On a field of ``target`` it makes the steps that this solver makes on ``field.reschedule(source)``
        (Shaul et al., ICLR 2024, Theorem 2.3): ``heun(grid=...).reschedule(VE(rho=1), schedule)`` is Heun's
        method in the noise level ``sigma / alpha``, whatever the network's own schedule.

        Args:
            source: the schedule whose coordinates this solver steps in.
            target: the schedule of the networks.

        Returns:
            A table of data predictions for ``target``.

        Raises:
            ValueError: when this is no table of velocities, or calls the network at a signal-to-noise ratio
                that ``target`` does not have, or in pure data.
        """
        if self.prediction != "velocity":
            raise ValueError(
                f"solver {self.name!r}: reschedule needs a table of velocities, not of {self.prediction} "
                "predictions; build it with schedule=..., or convert it with to('velocity')."
            )
        table, end = self.table.reschedule(source, target, self.end)
        self._check_calls(table, "data", source, "choose a grid that stops short of pure data")
        return replace(self._with_table(table), end=end, prediction="data", schedule=target)

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts that identify the solver: its name, calls, and a hash of its numbers."""
        numbers = [*self.table, self.points, self.end, self.prediction, self.schedule]
        return {"name": self.name, "nfe": self.nfe, "fingerprint": fingerprint(numbers)}

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
        """Freeze a tensor table into a solver, whose :attr:`table` keeps the gradients of this one.

        Without gradients, channels that are all alike become one number, and zero offsets none.
        """
        differentiable = any(part.requires_grad for part in table)
        table = table if differentiable else table.simplest()
        solver = cls(**_numbers(table), points=tuple(points), **facts)
        if differentiable:
            solver.__dict__["table"] = table
        return solver

    @cached_property
    def table(self) -> Table:
        """The numbers as float64 tensors; differentiable in the grid of a classical solver, if that was."""
        times, *offsets = (
            torch.tensor(numbers, dtype=torch.float64) for numbers in (self.times, self.offsets) if numbers
        )
        return Table(times, _square(self.C), _square(self.D), *offsets)

    def _readied(self, prediction: Prediction, schedule: Schedule) -> Readied:
        """The table for networks of one kind, made once."""
        self._check_schedule(schedule)
        key = (prediction, schedule)
        if key not in self._cache:
            self._cache[key] = ready(self.table, self.points, schedule, self.prediction, prediction)
        return self._cache[key]

    @cached_property
    def _cache(self) -> dict[tuple[Prediction, Schedule], Readied]:
        return {}

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


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(f"Solver: {problem}.")


def _numbers(table: Table) -> dict[str, Any]:
    """The numbers of a table, as a solver holds them."""
    return {
        "times": tuple(table.times.tolist()),
        "C": lower_triangle(table.C),
        "D": lower_triangle(table.D),
        "offsets": frozen(table.e) if table.e.ndim else (),
    }


def _channels(number: Number) -> int | None:
    return len(number) if isinstance(number, tuple) else None


def _finite(number: Number) -> bool:
    return all(map(math.isfinite, number)) if isinstance(number, tuple) else math.isfinite(number)


def _square(rows: Rows) -> Tensor:
    N, own = len(rows), _channels(rows[0][0])
    zero = 0.0 if own is None else (0.0,) * own
    return torch.tensor([[*row, *[zero] * (N - len(row))] for row in rows], dtype=torch.float64)
