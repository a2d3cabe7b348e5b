"""What pipelines of a diffusers scheduler and their networks exchange, and what we make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._broadcast import as_float64
from .._clock import default_clock, network_time
from ..schedules import DDPM, Discrete, from_dict
from ._denoise import Denoise
from ._diffusers_schedulers import Convention
from .edm import precondition

__all__ = [
    "SAME",
    "Wire",
    "convention_from_dict",
    "convention_to_dict",
    "time_of",
    "times_of",
    "timestep_at",
    "wire",
]

#: Largest distance of two timesteps that are taken as one, a thousandth of a step of training.
SAME = 1e-3


class Wire(NamedTuple):
    """One call of the network at a state ``x``: it gets ``scale x``, and predicts ``A x + B output``."""

    scale: float
    A: float
    B: float


def wire(reading: Convention, t: float) -> Wire:
    """Return what surrounds a call at time ``t``: EDM's preconditioning, or the sign of the output."""
    if reading.sigma_data is None:
        return Wire(1.0, 0.0, float(reading.sign))
    alpha, sigma = reading.schedule(t)[:2]
    data, lowest, scales = reading.sigma_data, reading.sigma_min, []

    def denoised(x: float, output: float) -> float:
        """The denoiser, linear in the state and the output, as the field has it."""

        def raw(scaled: Tensor, c_noise: Tensor) -> Tensor:
            scales.append(float(scaled))
            return scaled.new_tensor(output)

        def inner(x: Tensor, sigma: Tensor) -> Tensor:
            return precondition(raw, x, sigma, data, lowest)

        return float(Denoise(lowest)(inner, torch.tensor(x, dtype=torch.float64), sigma / alpha))

    A = denoised(1.0, 0.0)
    return Wire(scales[0], A, reading.sign * denoised(0.0, 1.0))


def timestep_at(reading: Convention, t: float) -> float:
    """Return the timestep that the scheduler's pipelines pass on at time ``t``."""
    clock = default_clock(reading.schedule) if reading.clock is None else reading.clock
    time = network_time(clock, reading.schedule, torch.tensor(t, dtype=torch.float64))
    if reading.sigma_data is not None:  # EDM's c_noise
        time = torch.as_tensor(time).clamp(min=reading.sigma_min).log() / 4
    return float(time)


def time_of(reading: Convention, timestep: Tensor) -> Tensor:
    """Return the times in [0, 1] of timesteps, the inverse of :func:`timestep_at`."""
    k = as_float64(timestep)
    if reading.sigma_data is not None:
        t = reading.schedule.inverse_log_snr(-4 * k)
    elif isinstance(reading.clock, tuple):
        start, end = reading.clock
        t = (k - start) / (end - start)
    else:
        assert isinstance(reading.schedule, DDPM | Discrete)
        t = (reading.schedule.count - 1 - k) / reading.schedule.count
    return t.clamp(0, 1)


def times_of(reading: Convention, timesteps: Tensor, own: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """Return the times of timesteps; of a solver's own, those of its states, which no rounding changes.

    Args:
        reading: the convention.
        timesteps: ``()`` or ``(B,)``.
        own: the solver's timesteps, and the times of its states.
    """
    steps, times = (timesteps.new_tensor(each, dtype=torch.float32) for each in own)
    distances = (timesteps.float()[..., None] - steps).abs()
    t = time_of(reading, timesteps).float()
    return torch.where(distances.amin(dim=-1) < SAME, times.take(distances.argmin(dim=-1)), t)


def convention_to_dict(reading: Convention) -> dict[str, Any]:
    """Return a convention in a form ready for JSON."""
    return {**reading._asdict(), "schedule": reading.schedule.to_dict()}


def convention_from_dict(facts: Mapping[str, Any]) -> Convention:
    """Return the convention described by :func:`convention_to_dict`."""
    clock = facts["clock"]
    clock = tuple(clock) if isinstance(clock, list | tuple) else clock
    return Convention(**{**facts, "schedule": from_dict(facts["schedule"]), "clock": clock})
