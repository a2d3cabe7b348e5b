"""Wirings: the conventions of a network's training, and the mistakes in declaring them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import get_args

import torch
from torch import Tensor

from .._clock import Clock, default_clock, describe_clock, network_time
from .._predictions import Prediction, conversion
from ..field import Field
from ..schedules import DDPM, VE, VP, CondOT, Cosine, Discrete, Schedule
from ..schedules._discrete import Betas
from ._whole import Whole

__all__ = ["Wiring", "alternatives", "declared", "kinds", "mistakes", "rewired"]

#: Clocks that networks are trained with: up or down, in [0, 1] or in thousandths, or the noise level.
CLOCKS: tuple[Clock, ...] = ((0, 1), (1, 0), (1000, 0), (0, 1000), "sigma")
#: Schedules that networks are trained under; those of DDPM come close to VP and Cosine.
SCHEDULES: tuple[Schedule, ...] = (CondOT(), VP(), Cosine(), DDPM("scaled_linear"), VE())
#: Clocks and schedules that differ less than this, of their range, are one.
ALIKE = 0.01

_WORDS = {"velocity": "the velocity", "noise": "the noise", "data": "the data", "v": "v"}


@dataclass(frozen=True)
class Wiring:
    """An interpretation of a network's input and output."""

    prediction: Prediction
    sign: int  # -1 if the network predicts the negative
    clock: Clock
    schedule: Schedule

    def denoised(self, x: Tensor, output: Tensor, t: float) -> Tensor:
        """Return the data prediction that corresponds to an output at ``(x, t)``."""
        A, B = conversion(self.schedule(t), "data", self.prediction)
        return output * self.sign if self.prediction == "data" else A * x + B * self.sign * output

    def describe(self, other: Wiring) -> str:
        """Describe the training of the network where it differs from ``other``."""
        parts = []
        if (self.prediction, self.sign) != (other.prediction, other.sign):
            minus = "minus " if self.sign < 0 else ""
            parts.append(
                f"to predict {minus}{_WORDS[self.prediction]}"
                + (f", not {_WORDS[other.prediction]}" if self.prediction != other.prediction else "")
            )
        if self.clock != other.clock:
            parts.append(f"to expect the clock {self._clock_name()}, not {other._clock_name()}")
        if self.schedule != other.schedule:
            parts.append(f"to be trained under {_brief(self.schedule)}, not {_brief(other.schedule)}")
        return " and ".join(parts)

    def _clock_name(self) -> str:
        default = default_clock(self.schedule)
        return _clock(default if self.clock == _clock_of(default, self.schedule) else self.clock)

    def expression(self) -> str:
        """Return the source code of a field with this wiring."""
        parts = ["model" if self.sign > 0 else "lambda x, t, **c: -model(x, t, **c)"]
        if self.schedule != CondOT():
            parts.append(_brief(self.schedule))
        if self.prediction != "velocity":
            parts.append(f"prediction={self.prediction!r}")
        if self.clock != _clock_of(default_clock(self.schedule), self.schedule):
            parts.append(f"clock={_clock(self.clock)}")
        return f"Field({', '.join(parts)})"


def declared(field: Field) -> Wiring:
    """Return the wiring that a field declares."""
    clock = _clock_of(field.clock, field.schedule)
    return Wiring(field.prediction, 1, clock, field.schedule)


def rewired(field: Field, wiring: Wiring) -> Field:
    """Return the field with another wiring of its network."""
    field, model = copy.copy(field), field.model
    field.prediction, field.clock, field.schedule = wiring.prediction, wiring.clock, wiring.schedule
    if wiring.clock == _clock_of(default_clock(wiring.schedule), wiring.schedule):
        field.clock = default_clock(wiring.schedule)  # timesteps, which end at 0
    if wiring.sign < 0:
        field.model = lambda x, t, **conditions: -model(x, t, **conditions)
    return field


def alternatives(wiring: Wiring, whole: Sequence[int] = ()) -> tuple[list[Wiring], list[Wiring]]:
    """Return the other wirings that differ by one mistake, and those that differ by two or three.

    Args:
        wiring: the declared one.
        whole: for networks that take whole numbers as time, how many there may be.
    """
    if whole:
        places = [
            replace(wiring, clock=clock, schedule=schedule) for clock, schedule in _looked_up(wiring, whole)
        ]
    else:
        pairs = itertools.product(_clocks(wiring), _schedules(wiring))
        places = [replace(wiring, clock=clock, schedule=schedule) for clock, schedule in pairs]
    others = [other for place in places for other in kinds(place) if other != wiring]
    single = [other for other in others if mistakes(other, wiring) == 1]
    return single, [other for other in others if mistakes(other, wiring) > 1]


def _looked_up(wiring: Wiring, counts: Sequence[int]) -> Iterator[tuple[Clock, Schedule]]:
    """Yield clocks of whole numbers and schedules: DDPM's in as many timesteps, and continuous ones."""
    if isinstance(wiring.schedule, DDPM | Discrete):
        yield "integer", wiring.schedule
    for count in counts:
        yield from (("integer", schedule) for schedule in _ddpms(count) if schedule != wiring.schedule)
        continuous = wiring.schedule, *(schedule for schedule in SCHEDULES if schedule != wiring.schedule)
        for schedule in continuous:
            if not isinstance(schedule, DDPM | Discrete):
                yield from ((clock, schedule) for clock in (Whole(count - 1, 0), Whole(0, count - 1)))


def _ddpms(count: int) -> list[Schedule]:
    return [DDPM(betas, steps=count) for betas in get_args(Betas)] if count > 2 else []


def kinds(wiring: Wiring) -> list[Wiring]:
    """Return all predictions, with both signs, under one clock and schedule."""
    every = itertools.product(get_args(Prediction), (1, -1))
    return [replace(wiring, prediction=prediction, sign=sign) for prediction, sign in every]


def mistakes(other: Wiring, wiring: Wiring) -> int:
    """Return the number of declarations that differ; a velocity from data to noise counts as 1."""
    flipped = other.sign != wiring.sign
    turned = _towards_noise(other) != _towards_noise(wiring)
    kind = (other.prediction, other.sign) != (wiring.prediction, wiring.sign)
    count = kind + (other.clock != wiring.clock) + (other.schedule != wiring.schedule)
    opposite = flipped and turned and other.prediction == wiring.prediction == "velocity"
    return count - opposite


def _towards_noise(wiring: Wiring) -> bool:
    at_noise, at_data = _told(wiring.clock, wiring.schedule, torch.tensor([0.05, 0.95])).tolist()
    return bool(at_noise > at_data)


def _clocks(wiring: Wiring) -> list[Clock]:
    own = _clock_of(default_clock(wiring.schedule), wiring.schedule)  # first its timesteps, if it has any
    return [wiring.clock, *(clock for clock in dict.fromkeys((own, *CLOCKS)) if not _alike(clock, wiring))]


def _alike(clock: Clock, wiring: Wiring) -> bool:
    t = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    own, other = (_told(c, wiring.schedule, t) for c in (wiring.clock, clock))
    return bool((own - other).abs().max() <= ALIKE * own.abs().max())


def _schedules(wiring: Wiring) -> list[Schedule]:
    """Return the declared schedule and those with other states at the same times.

    Of two that are alike the first one is named: DDPM's if the declared clock is that of timesteps.
    """
    levels = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)

    def alike(one: Schedule, other: Schedule) -> bool:
        t, s = one.inverse_log_snr(levels), other.inverse_log_snr(levels)
        return bool((t - s).abs().max() <= ALIKE and (one(t).alpha - other(s).alpha).abs().max() <= ALIKE)

    own = wiring.schedule
    ddpms = _ddpms(own.count) if isinstance(own, DDPM | Discrete) else []
    timesteps = wiring.clock == _clock_of(default_clock(own), own)
    found = [own]
    for schedule in (*ddpms, *SCHEDULES) if timesteps else (*SCHEDULES, *ddpms):
        if not any(alike(schedule, known) for known in found):
            found.append(schedule)
    return found


def _told(clock: Clock, schedule: Schedule, t: Tensor) -> Tensor:
    return torch.as_tensor(network_time(clock, schedule, t)).double()


def _clock_of(clock: Clock, schedule: Schedule) -> Clock:
    """Return the clock in a form that does not depend on the schedule's timesteps."""
    if clock == "timestep" and isinstance(schedule, DDPM | Discrete):
        return (schedule.count - 1, -1)
    return clock


def _brief(schedule: Schedule) -> str:
    """Return the expression of a schedule with its non-default arguments, without a table of numbers."""
    if isinstance(schedule, Discrete):
        return "Discrete(alphas_cumprod)"
    given = {f.name: getattr(schedule, f.name) for f in fields(schedule)}
    own = (f"{f.name}={given[f.name]!r}" for f in fields(schedule) if given[f.name] != f.default)
    return f"{type(schedule).__name__}({', '.join(own)})"


def _clock(clock: Clock) -> str:
    if isinstance(clock, str):
        return repr(clock)
    described = describe_clock(clock)
    return f"({described[0]:g}, {described[1]:g})" if isinstance(described, list) else str(described)
