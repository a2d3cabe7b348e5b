"""Fields from DPM-Solver: a noise prediction function and its ``NoiseScheduleVP``."""

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
    """Return the field of ``model_fn(x, t_continuous) -> noise``, made by DPM-Solver's ``model_wrapper``.

    The continuous time decreases from ``T = 1`` in noise: it is ``1 - t``, passed in shape ``(B,)`` and at
    least ``1 / N``, the time of the first training step. The function predicts the noise, whatever the
    network inside predicts. For guidance, use ``model_wrapper``, or pass conditions here.

    Args:
        model_fn: the function.
        noise_schedule: its ``NoiseScheduleVP``, or an object like it: with ``schedule="linear"``,
            ``beta_0`` and ``beta_1``; or ``schedule="discrete"`` and ``log_alpha_array``, the logarithms of
            ``alpha`` at times ``1 / N ... 1``. Between these times it interpolates ``log(alpha)`` linearly,
            but :class:`~fewstep.schedules.Discrete` the log signal-to-noise ratio with a spline.
        **options: options of :class:`~fewstep.Field`.

    Raises:
        ValueError: on another kind of noise schedule, or another range of time.
    """
    schedule, steps = _schedule(noise_schedule)
    options.setdefault("clock", Countdown(1 / steps))
    return Field(model_fn, schedule, "noise", **options)


@dataclass(frozen=True)
class Countdown:
    """The time ``1 - t``, at least ``lowest``."""

    lowest: float

    def __call__(self, t: Tensor) -> Tensor:
        return (1 - t).clamp(min=self.lowest)


def _schedule(given: Any) -> tuple[Schedule, int]:
    """Return the schedule and the number of training steps."""
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
