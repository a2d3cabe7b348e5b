"""The one loop that samples with every solver, and fits every family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Coefficient", "Row", "bound", "execute", "plan"]

#: A number, or a tensor that broadcasts against the states: while fitting, or for numbers that each channel
#: has for itself, which are sequences until they are bound to states.
Coefficient = float | Sequence[float] | Tensor


class Row(NamedTuple):
    """One line of a table: what to add up, and what no later row reads."""

    states: tuple[tuple[int, Coefficient], ...]
    predictions: tuple[tuple[int, Coefficient], ...]
    unread_states: tuple[int, ...]
    unread_predictions: tuple[int, ...]
    offset: Coefficient | None = None


def plan(
    C: Sequence[Sequence[Coefficient]],
    D: Sequence[Sequence[Coefficient]],
    keep_states: Iterable[int] = (),
    keep_predictions: bool = False,
    offsets: Sequence[Coefficient] = (),
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
            offsets[i] if offsets and _counts(offsets[i]) else None,
        )
        for i, (states, predictions) in enumerate(rows)
    ]


def bound(rows: Sequence[Row], x: Tensor) -> list[Row]:
    """Rows for states like ``x``: numbers a channel become tensors ``(channels, 1, ...)``, in one copy.

    They are kept in float32 at least, as single numbers are.
    """
    own = [c for row in rows for c in _coefficients(row) if isinstance(c, Sequence)]
    if not own:
        return list(rows)
    numbers = torch.tensor(own, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    each = iter(numbers.reshape(*numbers.shape, *[1] * (x.ndim - 2)).unbind())

    def for_states(c: Coefficient) -> Coefficient:
        return next(each) if isinstance(c, Sequence) else c

    return [
        row._replace(
            states=tuple((j, for_states(c)) for j, c in row.states),
            predictions=tuple((j, for_states(c)) for j, c in row.predictions),
            offset=None if row.offset is None else for_states(row.offset),
        )
        for row in rows
    ]


def execute(
    call: Callable[[int, Tensor, Any], Tensor],
    times: Sequence[Coefficient],
    rows: Sequence[Row],
    states: dict[int, Tensor],
    predictions: dict[int, Tensor],
    start: int = 1,
) -> Tensor:
    """Compute ``x_i = sum_j C[i,j] x_j + sum_j D[i,j] u_j + e_i`` for ``i = start .. N``; return ``x_N``.

    ``call(j, x_j, t_j)`` gives ``u_j``. ``states`` and ``predictions`` hold what is known already
    (at least ``x_0``) and receive what is computed, less what no later row reads.
    """
    for i in range(start, len(rows) + 1):
        row = rows[i - 1]
        if i - 1 not in predictions:
            predictions[i - 1] = call(i - 1, states[i - 1], times[i - 1])
        # No name for the terms: it would keep them alive during the next call.
        states[i] = _weighted_sum(
            [(c, states[j]) for j, c in row.states] + [(c, predictions[j]) for j, c in row.predictions],
            row.offset,
        )
        for j in row.unread_states:
            states.pop(j, None)
        for j in row.unread_predictions:
            predictions.pop(j, None)
    return states[len(rows)]


def _counts(c: Coefficient) -> bool:
    """Whether a coefficient does anything."""
    return isinstance(c, Tensor) or (any(c) if isinstance(c, Sequence) else c != 0)


def _nonzero(row: Sequence[Coefficient]) -> tuple[tuple[int, Coefficient], ...]:
    return tuple((j, c) for j, c in enumerate(row) if _counts(c))


def _coefficients(row: Row) -> list[Coefficient]:
    """All of a row, in the order in which they are bound."""
    terms = [c for _, c in (*row.states, *row.predictions)]
    return terms if row.offset is None else [*terms, row.offset]


def _weighted_sum(terms: Sequence[tuple[Any, Tensor]], offset: Any) -> Tensor:
    (c, x), *rest = terms
    dtype = x.dtype
    total: Tensor = c * x
    for c, x in rest:
        total = total + c * x if isinstance(c, Tensor) else torch.add(total, x, alpha=c)
    if offset is not None:
        total = total + offset
    return total if total.dtype == dtype else total.to(dtype)
