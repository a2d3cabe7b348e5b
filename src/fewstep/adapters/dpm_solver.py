"""Noise predictions as DPM-Solver takes them: a function and its ``NoiseScheduleVP``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..field import Field
from ..schedules import VP, Discrete, Schedule

__all__ = ["field"]


def field(model_fn: Callable[..., Tensor], noise_schedule: Any, **options: Any) -> Field:
    """The field of ``model_fn(x, t_continuous) -> noise``, the result of DPM-Solver's ``model_wrapper``.

    The continuous time there runs down, from ``T = 1`` in noise, and so is ``1 - t``; the function is told
    it in the shape ``(B,)`` and never below ``1 / N``, where its first training step lies. What it predicts
    is the noise, whatever the network inside does; for guidance, either wrap it there, or here with
    conditions.

    Args:
        model_fn: the function.
        noise_schedule: its ``NoiseScheduleVP``, or an object like it: with ``schedule="linear"``,
            ``beta_0`` and ``beta_1``; or ``schedule="discrete"`` and ``log_alpha_array``, the logarithms of
            ``alpha`` at times ``1 / N ... 1``. Between those times it interpolates ``log(alpha)`` with
            straight lines, and :class:`~fewstep.schedules.Discrete` the log signal-to-noise ratio with a
            spline.
        **options: of :class:`~fewstep.Field`.

    Raises:
        ValueError: on another kind of noise schedule, or another range of time.
    """
    schedule, steps = _schedule(noise_schedule)
    options.setdefault("clock", Countdown(1 / steps))
    return Field(model_fn, schedule, "noise", **options)


@dataclass(frozen=True)
class Countdown:
    """``1 - t``, but never below ``lowest``."""

    lowest: float

    def __call__(self, t: Tensor) -> Tensor:
        return (1 - t).clamp(min=self.lowest)


def _schedule(given: Any) -> tuple[Schedule, int]:
    """The schedule, and the number of training steps."""
    kind, last = getattr(given, "schedule", None), float(getattr(given, "T", 1.0))
    if kind not in ("linear", "discrete") or last != 1:
        raise ValueError(
            f"dpm_solver: noise_schedule must be 'linear' or 'discrete' with time up to T = 1, not {kind!r} "
            f"up to {last}; give the network to fewstep.Field with a schedule of your own."
        )
    if kind == "linear":
        return VP(float(given.beta_0), float(given.beta_1)), int(getattr(given, "total_N", 1000))
    log_alpha = torch.as_tensor(given.log_alpha_array).double().flatten()
    return Discrete((2 * log_alpha).exp().tolist()), len(log_alpha)
