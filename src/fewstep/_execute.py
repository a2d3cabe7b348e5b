"""The one loop that samples with every solver, and fits every family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ._table import Rows

__all__ = ["Coefficient", "Readied", "Row", "execute", "explain", "plan"]

#: A number, or, while fitting, a tensor that broadcasts against the states.
Coefficient = float | Tensor
#: ``call(j, x_j, t_j)`` gives ``u_j``.
Call = Callable[[int, Tensor, Any], Tensor]


class Row(NamedTuple):
    """One line of a table: what to add up, and what no later row reads."""

    states: tuple[tuple[int, Coefficient], ...]
    predictions: tuple[tuple[int, Coefficient], ...]
    unread_states: tuple[int, ...]
    unread_predictions: tuple[int, ...]


def plan(
    C: Sequence[Sequence[Coefficient]],
    D: Sequence[Sequence[Coefficient]],
    keep_states: Iterable[int] = (),
    keep_predictions: bool = False,
) -> list[Row]:
    """Drop the zeros of a table and find when each state and prediction is read last."""
    rows = [(_nonzero(c), _nonzero(d)) for c, d in zip(C, D, strict=True)]
    # A row of zeros is the zero state, in the shape of the one before.
    rows = [(s, p) if s or p else (((i, 0.0),), ()) for i, (s, p) in enumerate(rows)]
    kept = {*keep_states, len(rows)}
    last_state = list(range(len(rows)))  # state j is read by call j, that is by row j, at least
    last_call = list(range(len(rows)))
    for i, (states, predictions) in enumerate(rows):
        for j, _ in states:
            last_state[j] = i
        for j, _ in predictions:
            last_call[j] = i
    return [
        Row(
            states,
            predictions,
            tuple(j for j in range(i + 1) if last_state[j] == i and j not in kept),
            () if keep_predictions else tuple(j for j in range(i + 1) if last_call[j] == i),
        )
        for i, (states, predictions) in enumerate(rows)
    ]


class Readied(NamedTuple):
    """A table as the loop runs it, for networks of one prediction and schedule.

    Args:
        rows: what to add up.
        recorded: the same, keeping trajectory points and predictions.
        estimated: the calls, at an end of time, of which the table reads another prediction than the
            network's: the field's estimate of it.
    """

    rows: list[Row]
    recorded: list[Row]
    estimated: list[int]

    @classmethod
    def of(cls, C: Rows, D: Rows, points: Iterable[int], estimated: list[int]) -> Readied:
        """The plans of a table for this network."""
        return cls(plan(C, D), plan(C, D, points, keep_predictions=True), estimated)


def execute(
    call: Call,
    times: Sequence[Coefficient],
    rows: Sequence[Row],
    states: dict[int, Tensor],
    predictions: dict[int, Tensor],
    start: int = 1,
) -> Tensor:
    """Compute ``x_i = sum_j C[i,j] x_j + sum_j D[i,j] u_j`` for ``i = start .. N``; return ``x_N``.

    ``states`` and ``predictions`` hold what is known already (at least ``x_0``) and receive what is computed,
    less what no later row reads.
    """
    for i in range(start, len(rows) + 1):
        row = rows[i - 1]
        if i - 1 not in predictions:
            predictions[i - 1] = call(i - 1, states[i - 1], times[i - 1])
        # No name for the terms: it would keep them alive during the next call.
        states[i] = _weighted_sum(
            [(c, states[j]) for j, c in row.states] + [(c, predictions[j]) for j, c in row.predictions]
        )
        for j in row.unread_states:
            states.pop(j, None)
        for j in row.unread_predictions:
            predictions.pop(j, None)
    return states[len(rows)]


def explain(
    call: Call,
    times: Sequence[float],
    rows: Sequence[Row],
    x0: Tensor,
    start: Callable[[], Tensor],
    name: str,
) -> NoReturn:
    """Repeat a sampling from ``start()`` that ended in NaN or infinity, look at every call, and raise.

    Raises:
        ValueError: when the noise ``x0`` is to blame.
        FloatingPointError: at the first call whose result is not finite, or when all were.
    """
    if not torch.isfinite(x0).all():
        raise ValueError("x0: the noise itself holds NaN or infinity.")

    def watched(j: int, x: Tensor, t: float) -> Tensor:
        m = call(j, x, t)
        if not torch.isfinite(m).all():
            state = "finite" if torch.isfinite(x).all() else "already infinite"
            raise FloatingPointError(
                f"the network returned NaN or infinity at call {j} of {len(times)}, t = {t:g}, from a "
                f"{state} state of magnitude {x.abs().max():.3g}; look at the model there, or use a "
                "solver that does not call it at that time."
            )
        return m

    with torch.no_grad():
        execute(watched, times, rows, {0: start()}, {})
    raise FloatingPointError(
        f"sampling with {name!r} overflowed {x0.dtype} although every network output was finite; "
        "use a wider dtype for x0, or a solver with smaller coefficients."
    )


def _nonzero(row: Sequence[Coefficient]) -> tuple[tuple[int, Coefficient], ...]:
    return tuple((j, c) for j, c in enumerate(row) if isinstance(c, Tensor) or c != 0)


def _weighted_sum(terms: Sequence[tuple[Any, Tensor]]) -> Tensor:
    (c, x), *rest = terms
    dtype = x.dtype
    total: Tensor = c * x
    for c, x in rest:
        total = total + c * x if isinstance(c, Tensor) else torch.add(total, x, alpha=c)
    return total if total.dtype == dtype else total.to(dtype)
