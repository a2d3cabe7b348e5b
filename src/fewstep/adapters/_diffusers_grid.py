"""The grid of times on which a diffusers scheduler steps."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ._diffusers_dialect import time_of
from ._diffusers_schedulers import Convention, convention

__all__ = ["grid"]


def grid(
    scheduler: Any, n: int, *, timesteps: Literal["exact", "round"] = "exact", **options: Any
) -> tuple[float, ...]:
    """Return the times of a scheduler's own steps, to compare solvers on them or to start a fit from them.

    They are read from the ``sigmas`` that it computes, with its spacing, shift, Karras levels and all, and
    from its timesteps where it has none. On it, :func:`fewstep.classical.ddim` makes the steps of
    ``DDIMScheduler`` and ``EulerDiscreteScheduler``, and :func:`fewstep.classical.euler` those of
    ``FlowMatchEulerDiscreteScheduler``.

    Args:
        scheduler: a scheduler; a copy of it is asked.
        n: its ``num_inference_steps``.
        timesteps: some schedulers (``DPMSolverMultistep`` with Karras levels) tell the network a timestep
            that is rounded, at a state that is not. ``"exact"`` gives the times of the states, at which a
            field with ``clock="integer"`` calls the network as they do; ``"round"`` those that the network
            is told.
        **options: further arguments of its ``set_timesteps``, such as ``mu``.

    Returns:
        Increasing times in [0, 1], the first that of the first network call, the last that of the sample.

    Raises:
        ValueError: when the scheduler's convention is unknown, or ``timesteps`` neither of the two.
    """
    if timesteps not in ("exact", "round"):
        raise ValueError(f"grid: timesteps must be 'exact' or 'round', not {timesteps!r}.")
    reading = convention(scheduler)
    asked = type(scheduler).from_config(scheduler.config)
    asked.set_timesteps(n, **options)
    told = time_of(reading, asked.timesteps.double().cpu())
    sigmas = getattr(asked, "sigmas", None)
    if sigmas is None:
        times = [*told.tolist(), _end_without_levels(reading, asked)]
    else:
        levels = _times_of_levels(reading, torch.as_tensor(sigmas).double().cpu())
        times = [*(told if timesteps == "round" else levels[:-1]).tolist(), float(levels[-1])]
    found = times[:1]
    for t in times[1:]:
        if t > found[-1]:  # Heun's and others' lists name a point twice
            found.append(t)
    return tuple(found)


def _times_of_levels(reading: Convention, sigmas: Tensor) -> Tensor:
    """Return the times of noise levels: sigma of straight paths, and sigma / alpha of others."""
    if isinstance(reading.clock, tuple):
        start, end = reading.clock
        return time_of(reading, sigmas * max(start, end))
    return reading.schedule.inverse_log_snr(-sigmas.log()).clamp(0, 1)


def _end_without_levels(reading: Convention, scheduler: Any) -> float:
    """Return the time of the sample: pure data, or timestep 0 for DDIM without ``set_alpha_to_one``."""
    last = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return 1.0 if last == 1 else float(time_of(reading, torch.tensor(0.0)))
