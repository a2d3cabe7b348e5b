"""Sampling with a solver."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, overload
from weakref import finalize

import torch
from torch import Tensor

from . import _fitted_for
from ._compiled import Compiled, Mode
from ._execute import Correct, Readied
from ._noises import Noises, check_noises
from ._path import Path, check_conditions, check_noise
from ._predictions import Prediction
from ._program import Callback, Program
from ._progress import progress_bar
from ._table import Rows, Table, lower_triangle, square
from .field import Field
from .schedules import Schedule

__all__ = ["Sampling"]

#: The programs of living solvers that ``torch.compile`` has met, by a name.
_PROGRAMS: dict[str, Program] = {}


class Sampling:
    """What a solver does with its numbers; see :class:`fewstep.Solver`."""

    times: tuple[float, ...]
    C: Rows
    D: Rows
    S: tuple[float, ...]
    points: tuple[int, ...]
    name: str
    prediction: Prediction
    schedule: Schedule | None
    end: float
    fitted_for: Mapping[str, Any] | None

    @property
    def nfe(self) -> int:
        """Number of network calls, exact by construction."""
        return len(self.times)

    @property
    def noises(self) -> int:
        """Number of noises that it adds to a sample: 0 for every solver of an ODE."""
        return sum(number != 0 for number in self.S)

    @property
    def point_times(self) -> tuple[float, ...]:
        """Times of the trajectory points."""
        return tuple((*self.times, self.end)[i] for i in self.points)

    @cached_property
    def table(self) -> Table:
        """The numbers as float64 tensors."""
        table = Table(torch.tensor(self.times, dtype=torch.float64), square(self.C), square(self.D))
        return table._replace(S=torch.tensor(self.S, dtype=torch.float64)) if self.S else table

    @overload
    def sample(
        self, field: Field | Callable[..., Tensor], x0: Tensor, *, trajectory: Literal[False] = ...,
        progress: bool = ..., differentiable: bool = ..., check: bool = ...,
        callback: Callback | None = ..., noises: Noises | None = ..., **conditions: Any,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def sample(
        self, field: Field | Callable[..., Tensor], x0: Tensor, *, trajectory: Literal[True],
        progress: bool = ..., differentiable: bool = ..., check: bool = ...,
        callback: Callback | None = ..., noises: Noises | None = ..., **conditions: Any,
    ) -> Path: ...  # fmt: skip

    def sample(
        self,
        field: Field | Callable[..., Tensor],
        x0: Tensor,
        *,
        trajectory: bool = False,
        progress: bool = False,
        differentiable: bool = False,
        check: bool = True,
        callback: Callback | None = None,
        noises: Noises | None = None,
        **conditions: Any,
    ) -> Tensor | Path:
        """Map noise to samples with exactly :attr:`nfe` calls of the field.

        Args:
            field: a :class:`~fewstep.Field`, or a plain callable ``velocity(x, t)``.
            x0: standard normal noise, ``(B, ...)``, on the device of the network. States have its dtype,
                or float32 if that is wider.
            trajectory: return a :class:`Path` instead of the samples.
            progress: show a progress bar of the calls.
            differentiable: let gradients flow to ``x0`` and the network; the samples are then not checked.
            check: look for NaN and infinity in the samples. This is all that waits for the device; without
                it the call returns as soon as all work is queued. What ``torch.compile`` made of it never
                looks.
            callback: called as ``callback(j, x_j, prediction)`` after network call ``j``; must not
                change either tensor.
            noises: standard normal noises for the rows that add some, :attr:`noises` of them: a tensor
                ``(noises, B, ...)``, or a function ``noises(k, like)`` that returns noise ``k`` of the shape
                and device of ``like``, such as :func:`fewstep.noises`. There is no default.
            **conditions: passed to the network untouched.

        Returns:
            The samples, a tensor like ``x0``, or a :class:`Path`.

        At an end of time where the network's prediction does not determine the one that the table reads, the
        field's estimate of the latter, whose limit is known, is used: see :meth:`Field.predict_as`.

        Raises:
            ValueError: when ``x0`` is not a batch of noise, ``noises`` are missing or of another shape, or
                the table is for another schedule than the field's.
            TypeError: when the name of a condition is close to that of an argument: ``trajectry=True``.
            FloatingPointError: when the network returns NaN or infinity; gives the call and time.
        """
        check_noise(x0)
        check_noises(noises, self.noises, x0, self.name)
        kind = (x0.dtype, x0.device, x0.ndim, tuple(conditions))
        compiling = torch.compiler.is_compiling()
        program = _PROGRAMS[_keep_program(self, field, *kind)] if compiling else self._program(field, *kind)
        states: dict[int, Tensor] = {}
        predictions: dict[int, Tensor] = {}
        rows = program.recorded if trajectory else program.rows
        bar = progress_bar(progress, total=self.nfe, unit="call", desc=self.name)

        def report(j: int, x: Tensor, m: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback(j, x, m)

        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()), bar:
            told = report if progress or callback is not None else None
            x1 = program.run(x0, conditions, rows, states, predictions, told, noises)
        if check and not (differentiable or compiling or torch.isfinite(x1).all()):
            program.explain(x0, conditions, noises)
        if not trajectory:
            return x1
        return Path(
            x1,
            torch.stack([states[i] for i in self.points]),
            torch.tensor(self.point_times, dtype=torch.float64),
            torch.stack([predictions[j] for j in range(self.nfe)]),
            torch.tensor(self.times, dtype=torch.float64),
        )

    def compiled(
        self,
        field: Field | Callable[..., Tensor],
        like: Tensor,
        mode: Mode = "default",
        **conditions: Any,
    ) -> Compiled:
        """Return the sampling of a field as one program: ``compiled(x0, **conditions)`` gives the samples.

        With PyTorch 2.13, ``torch.compile`` takes functions that call :meth:`sample`, too; a change of an
        attribute of the field is not seen by what was compiled.

        Args:
            field: the field, as for :meth:`sample`.
            like: noise of the shape, type and device to come.
            mode: ``"graph"`` records the kernels of one sampling in a CUDA graph and replays them, which
                takes seconds to prepare; the other modes are those of ``torch.compile``, ``"default"`` and
                ``"reduce-overhead"`` among them, which fuse operations and take minutes on large networks.
            **conditions: conditions like those to come.

        Raises:
            ValueError: on an unknown mode, ``"graph"`` without CUDA, or a solver that adds noise.
        """
        self.check_ode("compiled")
        check_noise(like)
        program = self._program(field, like.dtype, like.device, like.ndim, tuple(conditions))
        return Compiled(program, like, conditions, mode)

    def mismatch(self, field: Field) -> str | None:
        """Describe in one sentence how ``field`` differs from the fields the solver was fitted for.

        Compares the names of the models, the schedules and the guidance scales. A model without its own name,
        such as a plain function, matches every model. ``None`` if nothing differs.
        """
        return _fitted_for.mismatch(self.name, self.fitted_for, field.describe())

    def _program(
        self,
        field: Field | Callable[..., Tensor],
        dtype: torch.dtype,
        device: torch.device,
        ndim: int,
        conditions: tuple[str, ...],
    ) -> Program:
        """Return the solver made ready for a field, and noises and conditions of one kind."""
        field = field if isinstance(field, Field) else Field(field)
        check_conditions(conditions)
        self._warn_of_mismatch(field)
        return Program(self, field, torch.empty([0] * ndim, dtype=dtype, device=device))

    def readied(self, prediction: Prediction, schedule: Schedule) -> Readied:
        """Return the table prepared for networks of one kind, from a cache."""
        self._check_schedule(schedule)
        key = (prediction, schedule)
        if key not in self._cache:
            self._cache[key] = self._ready(prediction, schedule)
        return self._cache[key]

    def correction(self, device: torch.device) -> Correct | None:
        """What is done to each state beyond its row, on a device: nothing, unless the solver is lifted."""
        return None

    def _ready(self, prediction: Prediction, schedule: Schedule) -> Readied:
        table, estimated = self.table.convert_where_finite(schedule, self.prediction, prediction)
        C, D = lower_triangle(table.C), lower_triangle(table.D)
        return Readied.of(C, D, self.points, estimated, self.S)

    @cached_property
    def _cache(self) -> dict[tuple[Prediction, Schedule], Readied]:
        return {}

    def check_ode(self, function: str) -> None:
        """Raise a ``ValueError`` that names a function if the solver adds noise, which it cannot do."""
        if self.noises:
            raise ValueError(
                f"{function}: solver {self.name!r} adds {self.noises} noises to every sample, which is not "
                "possible here; take a solver of the ODE, or sample with solver.sample(field, x0, "
                "noises=fs.noises(seed=0))."
            )

    def _warn_of_mismatch(self, field: Field) -> None:
        found = self.mismatch(field)
        if found is not None and found not in self._warned:
            self._warned.add(found)
            advice = "fit again for it, or silence this with warnings.filterwarnings('ignore', 'solver')"
            warnings.warn(f"{found}; {advice}.", stacklevel=4)

    @cached_property
    def _warned(self) -> set[str]:
        return set()

    def _check_schedule(self, schedule: Schedule) -> None:
        if self.schedule not in (None, schedule):
            raise ValueError(
                f"solver {self.name!r} is a table of {self.prediction} predictions for {self.schedule!r}, "
                f"but the field has {schedule!r}; build it again with schedule=field.schedule."
            )


def _keep_program(solver: Sampling, field: Field | Callable[..., Tensor], *kind: Any) -> str:
    """Make a program for ``torch.compile``, which guards who solver and field are; return its name."""
    name = " ".join(map(str, (id(solver), id(field), *kind)))
    if name not in _PROGRAMS:
        finalize(solver, _PROGRAMS.pop, name, None)
    _PROGRAMS[name] = solver._program(field, *kind)
    return name


# What torch.compiler.assume_constant_result does, without the second that its imports take.
_keep_program._dynamo_marked_constant = True  # type: ignore[attr-defined]
