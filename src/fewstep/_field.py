"""The calls of a field: a network, its prediction, schedule, guidance and conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ._broadcast import affine, as_float64, factor
from ._clock import Clock, checked_clock, clock_jumps, default_clock, time_maker
from ._conditions import Bound, bind, expand_unconditional, explained
from ._ends import finite_conversion
from ._field_arguments import (
    check_network,
    checked_guidance,
    checked_interval,
    checked_moments,
    checked_order,
    checked_rescale,
    checked_shape,
)
from ._guidance import doubled_conditions, guided_pair, mixed, scale_at
from ._identity import Identity
from ._network import bare, call_network, floating_type, home, state_type
from ._predictions import Prediction, check_prediction
from .schedules import CondOT, Schedule

__all__ = ["Call", "FieldBase"]

#: ``call(x, conditions)``: a prediction at one time.
Call = Callable[[Tensor, Mapping[str, Any]], Tensor]

Self = TypeVar("Self", bound="FieldBase")


class FieldBase(Identity):
    """A field without its changes of coordinates; see :class:`fewstep.Field`."""

    def __init__(
        self,
        model: Callable[..., Tensor],
        schedule: Schedule | None = None,
        prediction: Prediction = "velocity",
        *,
        shape: tuple[int, ...] | None = None,
        clock: Clock | None = None,
        time_shape: Literal["batch", "scalar"] = "batch",
        guidance: float | Tensor | None = None,
        unconditional: Mapping[str, Any] | None = None,
        guide: Callable[..., Tensor] | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float | Literal["norm"] = 0.0,
        joined_guidance: bool | None = None,
        data_moments: tuple[float | Tensor, float | Tensor] | None = None,
        name: str | None = None,
    ) -> None:
        check_prediction(prediction)
        self.schedule = CondOT() if schedule is None else schedule
        clock = default_clock(self.schedule) if clock is None else clock
        self.clock = checked_clock(clock, self.schedule)
        if time_shape not in ("batch", "scalar"):
            raise ValueError(f"Field: time_shape must be 'batch' or 'scalar', not {time_shape!r}.")
        if not isinstance(self.schedule, Schedule):
            raise ValueError(
                f"Field: schedule must be one of fewstep.schedules, such as schedules.VP(), not {schedule!r}."
            )
        check_network("model", model)
        if guide is not None:
            check_network("guide", guide)
        self.model = model
        self.prediction: Prediction = prediction
        self.shape = None if shape is None else checked_shape(shape)
        self.time_shape = time_shape
        self.guidance = checked_guidance(guidance, unconditional, guide)
        self.unconditional = dict(unconditional or {})
        self.guide = guide
        self.guidance_interval = checked_interval(guidance_interval)
        self.guidance_rescale = checked_rescale(guidance_rescale, unconditional, guide)
        self.joined_guidance = joined_guidance
        self.data_moments = checked_moments(data_moments)
        self.name = name or type(bare(model)).__name__
        self._named = name is not None
        self._bound: Bound | None = None

    @property
    def device(self) -> torch.device:
        """Device of the network's first parameter or buffer; the CPU if it has none."""
        return home(self.model)

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the network's first floating-point parameter; ``None`` if it has none."""
        return floating_type(self.model)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Those of the network and the guide that are modules."""
        return tuple(network for network in (self.model, self.guide) if isinstance(network, nn.Module))

    @property
    def forwards_per_call(self) -> int:
        """Network forwards per call of the field: two with guidance (within its interval), else one."""
        return 1 if self.guidance is None else 2

    @property
    def discontinuities(self) -> tuple[float, ...]:
        """Times inside (0, 1) at which the velocity jumps, as guidance or a clock of whole numbers does."""
        guided = () if self.guidance is None else self.guidance_interval
        clocked = clock_jumps(self.clock, self.schedule)
        return tuple(sorted({*(t for t in guided if 0 < t < 1), *clocked}))

    def __call__(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """Return the velocity ``dx/dt`` at ``x`` and ``t``; conditions go to the network untouched."""
        return self.predict_as("velocity", x, checked_order(x, t), **conditions)

    def predict_as(self, wanted: Prediction, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """Convert the network's prediction to another: ``"data"`` is the denoised estimate of ``x1``.

        Finite at both ends of time; see :meth:`at`.
        """
        return self.at(t, x, wanted)(x, conditions)

    def predict(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """Return the network's prediction at ``x`` and ``t``, with guidance, in float32 at least.

        Raises:
            ValueError: when the network's output is not a floating-point tensor shaped like ``x``.
            TypeError: when conditions are passed although the field has bound ones.
        """
        return self.at(t, x)(x, conditions)

    def at(self, t: Tensor | float, like: Tensor, wanted: Prediction | None = None) -> Call:
        """Return ``call(x, conditions)``, a prediction at ``t`` with all that depends on time worked out.

        For a number ``t`` the call works with numbers, so that it never waits for the device.

        Args:
            t: time, as in :meth:`__call__`.
            like: a tensor with the type, device and dimensions of the states.
            wanted: the prediction to convert the network's to; none by default. Conversions are finite at
                both ends of time: the limit that all exact networks share, if they determine one, or the
                value slightly inside.
        """
        if wanted is None or wanted == self.prediction:
            return self._predictor(t, like)
        known = self.data_moments is not None
        converted = finite_conversion(
            self.schedule, as_float64(t), wanted, self.prediction, state_type(like.dtype), mean_known=known
        )
        A, B, offset = (factor(c, t, like) for c in converted[:3])
        inner = self._predictor(converted.times if isinstance(t, Tensor) else float(converted.times), like)
        shift = offset * self._moments(like)[0] if known else 0.0

        def call(x: Tensor, conditions: Mapping[str, Any]) -> Tensor:
            x = x.to(state_type(x.dtype))
            value = A * x + B * inner(x, conditions)
            return value + shift if known else value

        return call

    def _predictor(self, t: Tensor | float, like: Tensor) -> Call:
        """Return ``call(x, conditions)``, the network's prediction at ``t``, with guidance."""
        time = time_maker(self.clock, self.schedule, t, batch=self.time_shape == "batch")
        scale = scale_at(t, self.guidance, self.guidance_interval, like)
        networks = self.model, self.model if self.guide is None else self.guide

        def call(x: Tensor, conditions: Mapping[str, Any]) -> Tensor:
            given = self._arguments(conditions, len(x))
            if scale is None:
                return call_network(self.model, x, partial(time, x), given)
            other = {**given, **self._replaced(given, len(x))}
            doubled = self._doubled(given, other, len(x))
            pair = partial(guided_pair, networks, x, time, (given, other), doubled)
            m, away = explained(pair, self.unconditional, given, len(x))
            return mixed(m, away, scale, self.guidance_rescale)

        return call

    def _doubled(
        self, given: Mapping[str, Any], away: Mapping[str, Any], count: int
    ) -> dict[str, Any] | None:
        """Return the conditions of both calls of guidance at once, ``None`` if they are to be two."""
        bound = self._bound
        if self.guide is not None or not (self.joined_guidance or (self.joined_guidance is None and bound)):
            return None
        doubled = doubled_conditions(given, away, None if bound is None else bound.per_sample, count)
        if doubled is None and self.joined_guidance:
            raise ValueError(
                "Field: joined_guidance=True needs the same names in conditions and unconditional, with one "
                f"row for each of the {count} states where they differ, and it must be known which others "
                "have rows, as it is of those bound by field.bind(conditions, per_sample, count)."
            )
        return doubled

    def _arguments(self, conditions: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Return the conditions of a call of ``count`` states, the bound ones if there are."""
        if self._bound is None:
            return conditions
        if conditions:
            raise TypeError(
                f"Field: its conditions are bound, but {', '.join(conditions)} came besides; bind all of "
                "them together."
            )
        return self._bound.arguments(count)

    def _replaced(self, conditions: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Return the conditions that replace others in the call that guidance leads away from."""
        if self._bound is None:
            return expand_unconditional(self.unconditional, conditions, count)
        return self._bound.away(count)

    def bind(
        self: Self,
        conditions: Mapping[str, Any] | None,
        per_sample: Mapping[str, Any] | None,
        count: int,
        samples: str = "samples",
        origin: tuple[Tensor, int] | None = None,
    ) -> Self:
        """Return the field with the conditions of ``count`` samples fixed, to be called without any.

        Args:
            conditions: keyword arguments of the network that all samples share, passed on untouched.
            per_sample: those with one row per sample, in tensors, arrays, lists or tuples, and in mappings of
                them; one row serves all samples, and is expanded to the batch.
            count: number of samples.
            samples: name of the samples in errors.
            origin: for a part of other samples, their indices in those, and the number of those;
                ``unconditional`` may have rows for all of them.

        Raises:
            ValueError: when a condition has a wrong number of rows, or the field is bound to others.
        """
        if self._bound is not None and not (conditions or per_sample):
            if self._bound.per_sample and self._bound.count != count:
                raise ValueError(
                    f"Field: its conditions are bound for {self._bound.count} samples, not for {count} "
                    f"{samples}; take some by .rows(index), or bind them anew."
                )
            return self
        if self._bound is not None:
            raise ValueError("Field: its conditions are bound already; pass all of them to one bind.")
        other = copy(self)
        other._bound = bind(conditions, per_sample, self.unconditional, count, samples, origin)
        return other

    def rows(self: Self, index: slice | Tensor) -> Self:
        """Return the field for some of the samples it is bound to; an index tensor may repeat them."""
        if self._bound is None or not self._bound.per_sample:
            return self
        other = copy(self)
        other._bound = self._bound.rows(index)
        return other

    def initial_state(self, noise: Tensor) -> Tensor:
        """Return the state at ``t = 0`` of standard normal noise: ``sigma(0) * noise``.

        With ``data_moments = (mean, std)``, the state has the mean and variance of ``x_0``:
        ``alpha(0) mean + sqrt(sigma(0)^2 + alpha(0)^2 std^2) * noise``.
        """
        shift, scale = self.initial_law(noise)
        return affine(noise.to(state_type(noise.dtype)), shift, scale)

    def initial_noise(self, state: Tensor) -> Tensor:
        """Return the standard normal noise of a state at ``t = 0``, the inverse of :meth:`initial_state`."""
        state = state.to(state_type(state.dtype))
        shift, scale = self.initial_law(state)
        return state if scale is None else (state - shift) / scale

    def initial_law(self, like: Tensor) -> tuple[Tensor | float, Tensor | float | None]:
        """Return mean and scale of the state at ``t = 0``; no scale if it is standard normal.

        Args:
            like: a tensor with the type and device of the states.
        """
        alpha, sigma = (float(c) for c in self.schedule(0.0)[:2])
        if alpha == 0 or self.data_moments is None:
            return 0.0, None if sigma == 1 else sigma
        mean, std = self._moments(like)
        return alpha * mean, (sigma**2 + alpha**2 * std**2).sqrt()

    def with_guidance(self: Self, guidance: float | Tensor | None) -> Self:
        """Return the same field with another guidance scale.

        Raises:
            ValueError: when there is nothing to guide away from.
        """
        other = copy(self)
        other.guidance = checked_guidance(guidance, self.unconditional or None, self.guide)
        return other

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        dtype = state_type(like.dtype)
        mean, std = (torch.as_tensor(m).to(like.device, dtype) for m in self.data_moments or (0.0, 0.0))
        return mean, std
