"""Fields derived from others: reversed in time, or under another schedule."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ._broadcast import as_float64, factor, like
from ._field import Call, FieldBase
from ._hashing import fingerprint
from ._network import state_type
from ._predictions import Prediction
from .schedules import Reversed, Schedule

__all__ = ["Derived", "Rescheduling", "Reversing"]


#: Largest difference of log signal-to-noise ratios that are taken as equal.
_SAME = 1e-9

Self = TypeVar("Self", bound="Derived")


class Derived(FieldBase):
    """Wraps a field; delegates calls, conditions and fingerprint."""

    def __init__(
        self, field: FieldBase, schedule: Schedule, prediction: Prediction, moments: Any, name: str
    ) -> None:
        super().__init__(
            field.model,
            schedule,
            prediction,
            shape=field.shape,
            clock=(0, 1),
            time_shape=field.time_shape,
            data_moments=moments,
            name=f"{field.name} {name}",
        )
        self.field = field
        # For descriptions: the wrapped field guides.
        self.guidance, self.guidance_rescale, self.guide = field.guidance, field.guidance_rescale, field.guide
        if field.guidance_interval != (0, 1):
            first, last = sorted(map(self._time, field.guidance_interval))
            self.guidance_interval = first, last

    def _time(self, t: float) -> float:
        """Return the time of this field at a time of the wrapped one."""
        raise NotImplementedError

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.field.networks

    @property
    def forwards_per_call(self) -> int:
        return self.field.forwards_per_call

    def with_guidance(self: Self, guidance: float | Tensor | None) -> Self:
        other = copy(self)
        other.field = self.field.with_guidance(guidance)
        other.guidance = other.field.guidance
        return other

    def bind(
        self: Self,
        conditions: Mapping[str, Any] | None,
        per_sample: Mapping[str, Any] | None,
        count: int,
        samples: str = "samples",
        origin: tuple[Tensor, int] | None = None,
    ) -> Self:
        other = copy(self)
        other.field = self.field.bind(conditions, per_sample, count, samples, origin)
        return other

    def rows(self: Self, index: slice | Tensor) -> Self:
        other = copy(self)
        other.field = self.field.rows(index)
        return other

    @property
    def identifiable(self) -> bool:
        return self.field.identifiable

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "of": self.field.describe()}

    def fingerprint(self) -> str:
        return fingerprint([self.describe(), self.data_moments, self.field.fingerprint()])


class Reversing(Derived):
    """The field from data to noise, ``u(x, t) = -u_field(x, 1 - t)``, with data and noise swapped."""

    def __init__(self, field: FieldBase) -> None:
        turned: dict[str, Prediction] = {"data": "noise", "noise": "data"}
        prediction = turned.get(field.prediction, field.prediction)
        # Here the data are noise, with known moments.
        super().__init__(field, Reversed(field.schedule), prediction, (0.0, 1.0), "reversed")

    @property
    def discontinuities(self) -> tuple[float, ...]:
        return tuple(map(self._time, reversed(self.field.discontinuities)))

    def _time(self, t: float) -> float:
        return 1 - t

    def initial_law(self, like: Tensor) -> tuple[float, None]:
        """Say that the noise is the state: this field starts from data."""
        return 0.0, None

    def _predictor(self, t: Tensor | float, like: Tensor) -> Call:
        inner = self.field.at(1 - t, like)
        if self.prediction in ("data", "noise"):
            return inner
        return lambda x, conditions: -inner(x, conditions)


class Rescheduling(Derived):
    """The scale-time transform: ``x = k xbar`` at the time of equal signal-to-noise ratio.

    At ratios that both schedules reach, ``(alpha, sigma) = k (alphabar, sigmabar)``: expected data and noise
    are equal, and ``v`` is scaled by ``k``. At noisier times than ``field`` has, the data are taken as
    Gaussian with its ``data_moments``, which leads to the initial state of ``field``; at cleaner times,
    ``x / alpha`` is taken as the data.
    """

    def __init__(self, field: FieldBase, schedule: Schedule) -> None:
        kept: Prediction = "v" if field.prediction == "velocity" else field.prediction
        super().__init__(field, schedule, kept, field.data_moments, "rescheduled")
        own, given = ([float(s.log_snr(end)) for end in (0.0, 1.0)] for s in (schedule, field.schedule))
        self._noisiest, self._cleanest = given
        self._noisier, self._cleaner = own[0] < given[0] - _SAME, own[1] > given[1] + _SAME

    @property
    def discontinuities(self) -> tuple[float, ...]:
        levels = [float(self.field.schedule.log_snr(t)) for t in self.field.discontinuities]
        levels = [self._noisiest] * self._noisier + levels + [self._cleanest] * self._cleaner
        times = [float(self.schedule.inverse_log_snr(level)) for level in levels]
        return tuple(t for t in times if 0 < t < 1)

    def _time(self, t: float) -> float:
        return float(self.schedule.inverse_log_snr(self.field.schedule.log_snr(t)))

    def _predictor(self, t: Tensor | float, like: Tensor) -> Call:
        level, ratio, source = self._correspondence(as_float64(t))
        inner = self.field.at(source if isinstance(t, Tensor) else float(source), like, self.prediction)
        at = self.schedule(as_float64(t))
        k, alpha, sigma = (factor(c, t, like) for c in (ratio, at.alpha, at.sigma))
        noisier = self._noisier and _mask(level < self._noisiest - _SAME, t, like)
        cleaner = self._cleaner and _mask(level > self._cleanest + _SAME, t, like)
        mean, std = self._moments(like)

        def call(x: Tensor, conditions: Mapping[str, Any]) -> Tensor:
            x = x.to(state_type(x.dtype))
            m = inner(k * x, conditions)
            m = m / k if self.prediction == "v" else m
            if noisier is not False:
                data = mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
                m = _where(noisier, self._from(data, (x - alpha * data) / sigma, alpha, sigma), m)
            if cleaner is not False:
                m = _where(cleaner, self._from(x / alpha, torch.zeros_like(x), alpha, sigma), m)
            return m

        return call

    def _correspondence(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log signal-to-noise ratio at ``t``, the scale ``k``, and the time of ``field``."""
        level = self.schedule.log_snr(t)
        source = self.field.schedule.inverse_log_snr(level.clamp(self._noisiest, self._cleanest)).clamp(0, 1)
        own, other = self.schedule(t), self.field.schedule(source)
        return level, (other.alpha + other.sigma) / (own.alpha + own.sigma), source

    def _from(self, data: Tensor, noise: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        return {"data": data, "noise": noise, "v": alpha * noise - sigma * data}[self.prediction]


def _mask(here: Tensor, t: Tensor | float, x: Tensor) -> Tensor | bool:
    """Return what is true of all states, or of each."""
    return like(here, x).bool() if isinstance(t, Tensor) else bool(here)


def _where(here: Tensor | bool, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(here, yes, no) if isinstance(here, Tensor) else yes if here else no
