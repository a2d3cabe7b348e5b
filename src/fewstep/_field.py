"""The calls of a field: a network, its prediction, schedule, guidance and conditions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ._clock import Clock, check_clock, default_clock, describe_clock, network_time
from ._conditions import Bound, bind, expand_unconditional
from ._ends import Affine, finite_conversion
from ._hashing import fingerprint
from ._network import call_network, floating_type, home, state_type
from ._predictions import Prediction, check_prediction
from .schedules import CondOT, Schedule

__all__ = ["FieldBase", "as_float64", "like"]

Self = TypeVar("Self", bound="FieldBase")


class FieldBase:
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
        data_moments: tuple[float | Tensor, float | Tensor] | None = None,
        name: str | None = None,
    ) -> None:
        check_prediction(prediction)
        self.schedule = CondOT() if schedule is None else schedule
        self.clock = default_clock(self.schedule) if clock is None else clock
        check_clock(self.clock, self.schedule)
        if time_shape not in ("batch", "scalar"):
            raise ValueError(f"Field: time_shape must be 'batch' or 'scalar', not {time_shape!r}.")
        if not isinstance(self.schedule, Schedule):
            raise ValueError(
                f"Field: schedule must be one of fewstep.schedules, such as schedules.VP(), not {schedule!r}."
            )
        _check_network("model", model)
        if guide is not None:
            _check_network("guide", guide)
        self.model = model
        self.prediction: Prediction = prediction
        self.shape = None if shape is None else _checked_shape(shape)
        self.time_shape = time_shape
        self.guidance = _checked_guidance(guidance, unconditional, guide)
        self.unconditional = dict(unconditional or {})
        self.guide = guide
        self.guidance_interval = _checked_interval(guidance_interval)
        self.data_moments = data_moments
        self.name = name or type(model).__name__
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
    def forwards_per_call(self) -> int:
        """Network forwards per call of the field: two with guidance (within its interval), else one."""
        return 1 if self.guidance is None else 2

    @property
    def discontinuities(self) -> tuple[float, ...]:
        """Times inside (0, 1) at which the velocity jumps, for adaptive solvers."""
        return () if self.guidance is None else tuple(t for t in self.guidance_interval if 0 < t < 1)

    def __call__(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """Return the velocity ``dx/dt`` at ``x`` and ``t``; conditions go to the network untouched."""
        return self.predict_as("velocity", x, t, **conditions)

    def predict_as(self, wanted: Prediction, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """Convert the network's prediction to another: ``"data"`` is the denoised estimate of ``x1``.

        Finite at both ends of time; see :meth:`conversion`.
        """
        if wanted == self.prediction:
            return self.predict(x, t, **conditions)
        x = x.to(state_type(x.dtype))
        A, B, offset, times = self.conversion(wanted, t, x)
        m = self.predict(x, times if isinstance(t, Tensor) else float(times), **conditions)
        value = like(A, x) * x + like(B, x) * m
        return value if self.data_moments is None else value + like(offset, x) * self._moments(x)[0]

    def conversion(self, wanted: Prediction, t: Tensor | float, x: Tensor) -> Affine:
        """Return ``A, B, offset, times`` of ``wanted = A x + B prediction(times) + offset mean``, like ``t``.

        Finite at both ends of time: the limit that all exact networks share, if they determine one, or the
        value slightly inside.
        """
        known = self.data_moments is not None
        t = as_float64(t)
        return finite_conversion(self.schedule, t, wanted, self.prediction, x.dtype, mean_known=known)

    def predict(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """Return the network's prediction at ``x`` and ``t``, with guidance, in float32 at least.

        Raises:
            ValueError: when the network's output is not a floating-point tensor shaped like ``x``.
            TypeError: when conditions are passed although the field has bound ones.
        """
        time, bound = self._network_time(t, x), self._bound
        if bound is not None:
            if conditions:
                raise TypeError(
                    f"Field: its conditions are bound, but {', '.join(conditions)} came besides; bind all of "
                    "them together."
                )
            conditions = bound.arguments(len(x))
        guided = self._guided(t, x)
        m = call_network(self.model, x, time, conditions)
        if guided is False or self.guidance is None:
            return m
        if bound is None:
            replaced = expand_unconditional(self.unconditional, conditions, len(x))
        else:
            replaced = bound.away(len(x))
        weaker = self.model if self.guide is None else self.guide
        away = call_network(weaker, x, time, conditions | replaced)
        scale = self.guidance if guided is True else torch.where(guided, self.guidance, 1.0).to(m)
        return away + scale * (m - away)

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
        noise = noise.to(state_type(noise.dtype))
        shift, scale = self._initial_law(noise)
        return noise if scale is None else shift + scale * noise

    def initial_noise(self, state: Tensor) -> Tensor:
        """Return the standard normal noise of a state at ``t = 0``, the inverse of :meth:`initial_state`."""
        state = state.to(state_type(state.dtype))
        shift, scale = self._initial_law(state)
        return state if scale is None else (state - shift) / scale

    def with_guidance(self: Self, guidance: float | Tensor | None) -> Self:
        """Return the same field with another guidance scale.

        Raises:
            ValueError: when there is nothing to guide away from.
        """
        other = copy(self)
        other.guidance = _checked_guidance(guidance, self.unconditional or None, self.guide)
        return other

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify this field in a solver file or a cache."""
        guided = {} if self.guidance is None else {
            "guidance_interval": list(self.guidance_interval),
            "guide": None if self.guide is None else type(self.guide).__name__,
        }  # fmt: skip
        return {
            "model": self.name,
            **({} if self._named else {"named": False}),
            "prediction": self.prediction,
            "schedule": self.schedule.to_dict(),
            "clock": describe_clock(self.clock),
            "guidance": self.guidance,
            **guided,
            "shape": None if self.shape is None else list(self.shape),
        }

    @property
    def identifiable(self) -> bool:
        """True if a cache can identify the model, by its weights or by a name."""
        return self._named or isinstance(self.model, nn.Module)

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the samples: description, moments, conditions and weights.

        Raises:
            ValueError: when the model has neither weights to hash nor a name.
        """
        if not self.identifiable:
            raise ValueError(
                "Field: a cache cannot tell one plain function from another; pass Field(..., name='...') "
                "with a name that changes when the model does."
            )
        weights = [m.state_dict() if isinstance(m, nn.Module) else {} for m in (self.model, self.guide)]
        bound = [] if self._bound is None else [vars(self._bound)]
        return fingerprint([self.describe(), self.unconditional, self.data_moments, weights, *bound])

    def __repr__(self) -> str:
        guided = "" if self.guidance is None else f", guidance={self.guidance}"
        return f"Field({self.name}, {self.schedule!r}, prediction={self.prediction!r}{guided})"

    def _initial_law(self, x: Tensor) -> tuple[Tensor | float, Tensor | float | None]:
        """Return mean and scale of the state at ``t = 0``; no scale if it is standard normal."""
        alpha, sigma = (float(c) for c in self.schedule(0.0)[:2])
        if alpha == 0 or self.data_moments is None:
            return 0.0, None if sigma == 1 else sigma
        mean, std = self._moments(x)
        return alpha * mean, (sigma**2 + alpha**2 * std**2).sqrt()

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.as_tensor(moment).to(x) for moment in self.data_moments or (0.0, 0.0))
        return mean, std

    def _network_time(self, t: Tensor | float, x: Tensor) -> Callable[[torch.dtype], Tensor]:
        """Return a function that makes a new tensor of the network's time argument in a given type."""
        shape, device = ((len(x),) if self.time_shape == "batch" else ()), x.device
        if not isinstance(t, Tensor):
            number = float(network_time(self.clock, self.schedule, torch.tensor(t, dtype=torch.float64)))
            return lambda dtype: torch.full(shape, number, dtype=dtype, device=device)
        times = network_time(self.clock, self.schedule, t.to(device=device))
        return lambda dtype: times.to(dtype).expand(shape or times.shape).clone()

    def _guided(self, t: Tensor | float, x: Tensor) -> bool | Tensor:
        """Return whether guidance acts at ``t``, for all samples or for each."""
        if self.guidance is None:
            return False
        first, last = self.guidance_interval
        if (first, last) == (0, 1):
            return True
        if not isinstance(t, Tensor):
            return first <= t <= last
        inside = (t >= first) & (t <= last)
        return like(inside, x).bool()


def as_float64(t: Tensor | float) -> Tensor:
    """Return a time in float64, or as it is on Apple's GPUs, which have none."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)
    return t if t.device.type == "mps" else t.double()


def like(c: Tensor, x: Tensor) -> Tensor:
    """Return a number, or one per sample, in a shape to multiply ``x`` by."""
    return c.to(x).reshape(-1, *[1] * (x.ndim - 1)) if c.ndim else c


def _checked_guidance(guidance: float | Tensor | None, unconditional: object, guide: object) -> float | None:
    """Return the scale as a number, ``None`` for no guidance."""
    if isinstance(guidance, Tensor):
        if guidance.numel() != 1:
            raise ValueError(
                f"Field: guidance must be one number, not a tensor of shape {tuple(guidance.shape)}; make a "
                "field for each scale by with_guidance."
            )
        guidance = guidance.item()
    if guidance is None:
        return None
    if isinstance(guidance, bool) or not isinstance(guidance, Real) or not math.isfinite(guidance):
        raise ValueError(f"Field: guidance must be a finite number or None, not {guidance!r}.")
    if guidance == 1:
        return None
    if unconditional is None and guide is None:
        raise ValueError(
            f"Field: guidance={guidance} needs unconditional={{...}}, the keyword arguments "
            "that make the network unconditional, or guide=..., a weaker model."
        )
    return float(guidance)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not all(isinstance(size, Integral) and size > 0 for size in sizes) or not isinstance(shape, Sequence):
        raise ValueError(f"Field: shape must be sizes of one sample, such as (3, 32, 32), not {shape!r}.")
    return tuple(map(int, sizes))


def _checked_interval(interval: Sequence[float]) -> tuple[float, float]:
    ends = tuple(interval) if isinstance(interval, Sequence) else ()
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(
            f"Field: guidance_interval must be two increasing times within [0, 1], not {interval!r}."
        )
    return float(ends[0]), float(ends[1])


def _check_network(label: str, network: Callable[..., Tensor]) -> None:
    if not callable(network):
        raise ValueError(f"Field: {label} must be callable as model(x, t), not {type(network).__name__}.")
    if isinstance(network, nn.Module) and network.training:
        warnings.warn(
            f"Field: {type(network).__name__} is in training mode, so dropout and batch "
            "statistics disturb the ODE; call model.eval() first.",
            stacklevel=3,
        )
