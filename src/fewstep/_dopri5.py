"""Adaptive Dormand-Prince between fixed times, with a limit on calls and none outside the times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ._extras import require
from ._ranges import COUNT, NOT_NEGATIVE, check_range

__all__ = ["CallLimitError", "answers_differ", "check_tolerances", "dopri5"]

#: Relative difference of two outputs for the same input that is more than rounding.
_ROUNDING = 1e-5

#: Calls that a jump takes to be stepped onto: a step, and the velocity behind it.
_A_JUMP = 7

#: Integrated state: one tensor, or several of one type whose errors are controlled separately.
State = TypeVar("State", Tensor, tuple[Tensor, ...])


class CallLimitError(RuntimeError):
    """The adaptive solver needs more network calls than allowed."""


def check_tolerances(name: str, rtol: float, atol: float) -> tuple[float, float]:
    """Return the tolerances; raise a ``ValueError`` unless they are of at least 0, and not both 0."""
    rtol, atol = check_range(name, NOT_NEGATIVE, rtol=rtol, atol=atol)
    if rtol == atol == 0:
        raise ValueError(f"{name}: rtol and atol must not both be 0; 1e-5 is usual.")
    return rtol, atol


def answers_differ(evaluate: Callable[[], Tensor | tuple[Tensor, ...]]) -> str:
    """Describe a network that is not deterministic; an empty string for others.

    Args:
        evaluate: calls the network, always with the same states and time.
    """
    with torch.no_grad():
        first, second = (u[0] if isinstance(u, tuple) else u for u in (evaluate(), evaluate()))
        change, scale = (float(x.square().mean().sqrt()) for x in (first - second, first))
    if not change > _ROUNDING * scale:
        return ""
    return (
        f"the network answers differently when called twice with one state (RMS difference {change:.2g}), so "
        "no step size can meet a tolerance; call model.eval() if it has dropout, or fix the noise it draws"
    )


def dopri5(
    velocity: Callable[[Tensor, State], State],
    state: State,
    times: Sequence[float],
    name: str,
    sources: Sequence[str] = ("network",),
    *,
    jumps: Sequence[float] = (),
    rtol: float,
    atol: float,
    max_nfe: int,
) -> tuple[State, int]:
    """Solve ``d state / dt = velocity(t, state)`` by torchdiffeq, one step size for the batch.

    Args:
        velocity: the right-hand side, finite between the first and the last time.
        state: the state at the first time.
        times: times of the returned states, increasing or decreasing; the last one ends the solution.
        name: name of the caller in errors.
        sources: names in errors of the sources of the velocity's parts.
        jumps: times at which the velocity is discontinuous, to step onto if that leaves half of the calls;
            the steps that error control takes over many small jumps are fewer.
        rtol: relative tolerance of the local error: of its root mean square over batch and dimensions,
            and of the largest of these when there are several tensors.
        atol: absolute tolerance of the same.
        max_nfe: most calls of ``velocity``.

    Returns:
        The states, stacked along a new first dimension, and the number of calls.

    Raises:
        ValueError: when a tolerance is negative, or ``max_nfe`` not a whole number of at least 1.
        CallLimitError: when ``max_nfe`` calls are not enough.
        FloatingPointError: when the velocity is NaN or infinite, or the step size underflows.
    """
    torchdiffeq = require("torchdiffeq", "fit")
    rtol, atol = check_tolerances(name, rtol, atol)
    (max_nfe,) = check_range(name, COUNT, max_nfe=max_nfe)
    nfe = 0
    last: tuple[Tensor, State] | None = None
    failure: BaseException | None = None

    def repeated() -> str:
        """Return the reason, if it is a random velocity."""
        return "" if last is None else answers_differ(lambda: velocity(*last))

    def counted(t: Tensor, x: State) -> State:
        nonlocal nfe, last, failure
        nfe += 1
        if nfe > max_nfe:
            reason = repeated() or "raise max_nfe, loosen the tolerances, or look at the field there"
            raise CallLimitError(
                f"{name}: {max_nfe} calls did not reach t = {times[-1]:g} (stopped at t = {float(t):.4f}) "
                f"with rtol={rtol:g}, atol={atol:g}; {reason}."
            )
        # The guess of the first step may go far past the end, where a field need not exist.
        last = t.clamp(min(times), max(times)), x
        try:
            u = velocity(*last)
        except AssertionError as error:
            failure = error
            raise
        for source, part in zip(sources, u if isinstance(u, tuple) else (u,), strict=True):
            if not part.isfinite().all():
                raise FloatingPointError(
                    f"{name}: the {source} returned NaN or infinity at t = {float(t):.6g} (call {nfe})."
                )
        return u

    device = (state[0] if isinstance(state, tuple) else state).device
    at = torch.tensor(list(times), dtype=torch.float64, device=device)
    options = {"step_t": at[-1:]}  # step onto the end: beyond it a field need not exist
    within = [t for t in jumps if min(times) < t < max(times)]
    if 0 < _A_JUMP * len(within) <= max_nfe / 2:
        options["jump_t"] = at.new_tensor(sorted(within))
    with torch.no_grad():
        try:
            states = torchdiffeq.odeint(
                counted,
                state,
                at,
                rtol=rtol,
                atol=atol,
                method="dopri5",
                options=options,
            )
        except AssertionError as error:  # torchdiffeq's error when the step underflows
            if error is failure:
                raise
            reason = repeated() or f"loosen rtol={rtol:g}, atol={atol:g}, or pass dtype=torch.float64"
            raise FloatingPointError(f"{name}: the step size fell to nothing ({error}); {reason}.") from None
    return states, nfe
