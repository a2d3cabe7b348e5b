"""Reference solutions of one batch, by adaptive Dormand-Prince or on a fixed grid."""

from __future__ import annotations

from collections.abc import Sequence
from operator import lt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._device import widest
from ._dopri5 import dopri5
from ._fixed_grid import grid_edges, rk4
from ._network import state_type
from ._path import check_conditions, check_noise
from ._ranges import COUNT, UNIT, check_range
from .field import Field, check_field

__all__ = ["Solution", "finest", "solve"]


class Solution(NamedTuple):
    """A reference solution of one batch.

    Shape:
        ``states``: ``(T, B, ...)``, at the given times; ``nfe``: network calls per sample.
    """

    states: Tensor
    nfe: int


def solve(
    field: Field,
    x0: Tensor,
    *,
    times: Sequence[float] = (0.0, 1.0),
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    dtype: torch.dtype | None = None,
    steps: int | None = None,
    **conditions: Any,
) -> Solution:
    """Solve the sampling ODE from noise by torchdiffeq's ``dopri5``, one step size for the batch.

    Given ``steps``, by the classical Runge-Kutta method on a fixed grid instead, whose four calls a step do
    not depend on the tolerances and on ``max_nfe``; its state is in float64 if the device has it.

    Args:
        field: the field.
        x0: standard normal noise, ``(B, ...)``.
        times: times of the returned states, increasing from 0 within [0, 1]; the last one ends the solution.
        rtol: relative tolerance of the local error.
        atol: absolute tolerance of the local error.
        max_nfe: most network calls.
        dtype: type of the integrated state, by default that of ``x0``, float32 at least; float64
            avoids rounding of the state, while the field still gets the type of ``x0``.
        steps: steps of the fixed grid, fewest in the middle; further ones end at ``times`` and at the
            field's ``discontinuities``, if these are no more than ``steps``.
        **conditions: passed to the network untouched.

    Raises:
        ValueError: when ``x0`` is no batch of noise, the times do not increase from 0 within [0, 1], or a
            number is out of range.
        CallLimitError: when ``max_nfe`` calls are not enough.
        FloatingPointError: when the network returns NaN, or float32 cannot resolve the tolerance.
    """
    check_field(field, "reference.solve")
    check_conditions(conditions, "reference.solve", ("times", "rtol", "atol", "max_nfe", "dtype", "steps"))
    check_noise(x0, some=True)
    given = tuple(times.tolist() if isinstance(times, Tensor) else times)
    times = tuple(map(UNIT.number, given))
    if len(times) < 2 or None in times or times[0] != 0 or not all(map(lt, times, times[1:])):
        raise ValueError(
            f"times: must increase from 0 within [0, 1], two of them at least, not {given}; (0, 1) "
            "solves from noise to data."
        )
    seen = state_type(x0.dtype)

    def velocity(t: Tensor | float, x: Tensor) -> Tensor:
        return field(x.to(seen), t, **conditions).to(x.dtype)

    if steps is not None:
        (steps,) = check_range("reference", COUNT, steps=steps)
        edges = grid_edges(times, field.discontinuities, steps)
        state = field.initial_state(x0).to(state_type(dtype or widest(x0.device)))
        states, nfe = rk4(velocity, state, edges, times)
        return Solution(states.to(seen), nfe)
    state = field.initial_state(x0).to(state_type(dtype or seen))
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    states, nfe = dopri5(velocity, state, times, "reference", jumps=field.discontinuities, **options)
    return Solution(states.to(seen), nfe)


def finest(field: Field) -> float:
    """Return the tolerance for references of a field: 1e-6, and 3e-5 for networks of half precision.

    With finer ones the step size follows the rounding of the network, not its path: the digits in bfloat16
    take 1364 calls at 1e-6 and 110 at 3e-5, for samples that are .002 from those in float32.
    """
    return 1e-6 if field.dtype in (None, torch.float32, torch.float64) else 3e-5
