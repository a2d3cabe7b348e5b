"""Sampling with a table: the network's own predictions go in, and what cannot be told from them does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._execute import Row, bound, execute, plan
from ._predictions import Prediction
from ._progress import progress_bar
from ._table import Table, frozen, lower_triangle
from .field import Field
from .schedules import Schedule

__all__ = ["Path", "Readied", "check_noise", "ready", "sample"]


class Path(NamedTuple):
    """A recorded sampling.

    Shape:
        ``x1``: like the noise, ``(B, ...)``; ``states``: ``(P, B, ...)``, the trajectory points, noise
        first; ``times``: ``(P,)``, their times; ``predictions``: ``(N, B, ...)``, what the network
        predicted at each call (at an end of time that leaves what the table reads undefined, the
        estimate of that); ``call_times``: ``(N,)``.
    """

    x1: Tensor
    states: Tensor
    times: Tensor
    predictions: Tensor
    call_times: Tensor


class Readied(NamedTuple):
    """A table as the loop runs it, for networks of one prediction and schedule.

    Args:
        times: of the calls.
        rows: what to add up.
        recorded_rows: the same, keeping trajectory points and predictions.
        wanted: the prediction that the table was made for.
        estimated: the calls, at an end of time, of which the table reads that, as the field estimates it.
        channels: how many channels have numbers of their own.
    """

    times: tuple[float, ...]
    rows: list[Row]
    recorded_rows: list[Row]
    wanted: Prediction
    estimated: frozenset[int]
    channels: int | None

    def rows_for(self, x: Tensor, recorded: bool = False) -> list[Row]:
        """What to add up, for states like ``x``."""
        rows = self.recorded_rows if recorded else self.rows
        return rows if self.channels is None else bound(rows, x)

    def call(self, field: Field, j: int, x: Tensor, t: float, conditions: Mapping[str, Any]) -> Tensor:
        """What call ``j`` contributes, in the type of the state."""
        if j in self.estimated:
            return field.predict_as(self.wanted, x, t, **conditions).to(x.dtype)
        return field.predict(x, t, **conditions).to(x.dtype)


def ready(
    table: Table, points: tuple[int, ...], schedule: Schedule, wanted: Prediction, given: Prediction
) -> Readied:
    """Rewrite a table that reads ``wanted`` for networks that predict ``given``."""
    direct = table.convert(schedule, wanted, given)
    undefined = ~direct.finite_calls()
    columns = undefined if table.C.ndim == 2 else undefined[:, None]
    C = lower_triangle(torch.where(columns, table.C, direct.C))
    D = lower_triangle(torch.where(columns, table.D, direct.D))
    offsets = frozen(table.e) if table.e.ndim else ()
    return Readied(
        tuple(table.times.tolist()),
        plan(C, D, offsets=offsets),
        plan(C, D, keep_states=points, keep_predictions=True, offsets=offsets),
        wanted,
        frozenset(undefined.nonzero().flatten().tolist()),
        table.channels,
    )


def sample(
    table: Readied,
    field: Field,
    x0: Tensor,
    points: tuple[int, ...],
    point_times: tuple[float, ...],
    *,
    name: str,
    trajectory: bool,
    progress: bool,
    differentiable: bool,
    callback: Callable[[int, Tensor, Tensor], None] | None,
    conditions: Mapping[str, Any],
) -> Any:
    """What :meth:`fewstep.Solver.sample` does, once the table is readied."""
    states: dict[int, Tensor] = {0: field.initial_state(x0)}
    predictions: dict[int, Tensor] = {}
    bar = progress_bar(progress, total=len(table.times), unit="call", desc=name)

    def call(j: int, x: Tensor, t: float) -> Tensor:
        m = table.call(field, j, x, t, conditions)
        bar.update()
        if callback is not None:
            callback(j, x, m)
        return m

    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()), bar:
        rows = table.rows_for(x0, trajectory)
        x1 = execute(call, table.times, rows, states, predictions).to(x0.dtype)
    if not (differentiable or torch.isfinite(x1).all()):
        _explain(table, field, x0, name, conditions)
    if not trajectory:
        return x1
    return Path(
        x1,
        torch.stack([states[i] for i in points]),
        torch.tensor(point_times, dtype=torch.float64),
        torch.stack([predictions[j] for j in range(len(table.times))]),
        torch.tensor(table.times, dtype=torch.float64),
    )


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


def _explain(table: Readied, field: Field, x0: Tensor, name: str, conditions: Mapping[str, Any]) -> None:
    """Repeat a sampling that ended in NaN, look at every call, and raise."""
    if not torch.isfinite(x0).all():
        raise ValueError("x0: the noise itself holds NaN or infinity.")

    def call(j: int, x: Tensor, t: float) -> Tensor:
        m = table.call(field, j, x, t, conditions)
        if not torch.isfinite(m).all():
            state = "finite" if torch.isfinite(x).all() else "already infinite"
            raise FloatingPointError(
                f"the network returned NaN or infinity at call {j} of {len(table.times)}, t = {t:g}, from a "
                f"{state} state of magnitude {x.abs().max():.3g}; look at the model there, or use a "
                "solver that does not call it at that time."
            )
        return m

    with torch.no_grad():
        execute(call, table.times, table.rows_for(x0), {0: field.initial_state(x0)}, {})
    raise FloatingPointError(
        f"sampling with {name!r} overflowed {x0.dtype} although every network output was finite; "
        "use a wider dtype for x0, or a solver with smaller coefficients."
    )
