"""The loop over the rows of a table that runs in all sampling and fitting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ._table import Rows

__all__ = ["Call", "Coefficient", "Correct", "Readied", "Row", "advance", "execute", "plan"]

#: A number, or, while fitting, a tensor that broadcasts against the states.
Coefficient = float | Tensor
#: ``call(j, x_j, t_j)`` returns ``u_j``.
Call = Callable[[int, Tensor, Any], Tensor]
#: ``correct(i, states, predictions)`` may replace state ``i``, which is just made.
Correct = Callable[[int, dict[int, Tensor], dict[int, Tensor]], None]


class Row(NamedTuple):
    """One row of a table: the nonzero terms, and the states and predictions that no later row reads.

    The noise that row ``i`` adds is prediction ``~i``, which is negative.
    """

    states: tuple[tuple[int, Coefficient], ...]
    predictions: tuple[tuple[int, Coefficient], ...]
    unread_states: tuple[int, ...]
    unread_predictions: tuple[int, ...]


def plan(
    C: Sequence[Sequence[Coefficient]],
    D: Sequence[Sequence[Coefficient]],
    keep_states: Iterable[int] = (),
    keep_predictions: bool = False,
    S: Sequence[float] = (),
) -> list[Row]:
    """Drop the zeros of a table, and find the last row that reads each state and prediction."""
    rows = [(_nonzero(c), _nonzero(d)) for c, d in zip(C, D, strict=True)]
    for i, scale in enumerate(S):
        rows[i] = (rows[i][0], (*rows[i][1], *[(~i, scale)] * (scale != 0)))
    # A row of zeros is the zero state, with the shape of the state before.
    rows = [(s, p) if s or p else (((i, 0.0),), ()) for i, (s, p) in enumerate(rows)]
    kept = {*keep_states, len(rows)}
    last_state = list(range(len(rows)))  # at least row j reads state j, in call j
    last_call = {j: j for j in range(len(rows))}
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
            () if keep_predictions else tuple(j for j, last in last_call.items() if last == i),
        )
        for i, (states, predictions) in enumerate(rows)
    ]


class Readied(NamedTuple):
    """A table prepared for the loop, for networks of one prediction and schedule.

    Args:
        rows: the rows.
        recorded: the same, keeping trajectory points and predictions.
        estimated: calls, at an end of time, whose network prediction the field converts to the one that the
            table reads.
        largest: the largest magnitude of its numbers.
        noisy: the rows that add noise.
    """

    rows: list[Row]
    recorded: list[Row]
    estimated: list[int]
    largest: float
    noisy: list[int]

    @classmethod
    def of(
        cls,
        C: Rows,
        D: Rows,
        points: Iterable[int],
        estimated: list[int],
        S: Sequence[float] = (),
        keep: bool = False,
    ) -> Readied:
        """Plan a table for this network; with ``keep`` all rows keep the first state and all predictions."""
        largest = max(abs(number) for row in (*C, *D, S) for number in row)
        noisy = [i for i, number in enumerate(S) if number]
        rows = plan(C, D, (0,) if keep else (), keep_predictions=keep, S=S)
        recorded = plan(C, D, (0, *points), keep_predictions=True, S=S)
        return cls(rows, recorded, estimated, largest, noisy)


def execute(
    call: Call,
    times: Sequence[Coefficient],
    rows: Sequence[Row],
    states: dict[int, Tensor],
    predictions: dict[int, Tensor],
    start: int = 1,
    correct: Correct | None = None,
) -> Tensor:
    """Compute ``x_i = sum_j C[i,j] x_j + sum_j D[i,j] u_j`` for ``i = start .. N``; return ``x_N``.

    ``states`` and ``predictions`` hold the known ones (at least ``x_0``) and receive the computed ones; those
    that no later row reads are removed. The noises that rows add are among the ``predictions``: see
    :class:`Row`.
    """
    for i in range(start, len(rows) + 1):
        if i - 1 not in predictions:
            predictions[i - 1] = call(i - 1, states[i - 1], times[i - 1])
        advance(rows[i - 1], i, states, predictions)
        if correct is not None:
            correct(i, states, predictions)
    return states[len(rows)]


def advance(row: Row, i: int, states: dict[int, Tensor], predictions: dict[int, Tensor]) -> None:
    """Compute ``x_i`` by its row; drop the states and predictions that no later row reads."""
    # The terms have no name, which would keep them alive during the next call.
    states[i] = _weighted_sum(
        [(c, states[j]) for j, c in row.states] + [(c, predictions[j]) for j, c in row.predictions]
    )
    for j in row.unread_states:
        states.pop(j, None)
    for j in row.unread_predictions:
        predictions.pop(j, None)


def _nonzero(row: Sequence[Coefficient]) -> tuple[tuple[int, Coefficient], ...]:
    return tuple((j, c) for j, c in enumerate(row) if isinstance(c, Tensor) or c != 0)


def _weighted_sum(terms: Sequence[tuple[Any, Tensor]]) -> Tensor:
    (c, x), *rest = terms
    dtype = x.dtype
    total: Tensor = c * x
    for c, x in rest:
        # The sum is no one else's, and its gradient needs no sum before, so that it may be written into.
        total = total + c * x if isinstance(c, Tensor) else total.add_(x, alpha=c)
    return total if total.dtype == dtype else total.to(dtype)
