"""Checks of the arguments of a field."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from ._ranges import FINITE, NOT_NEGATIVE, UNIT

__all__ = [
    "check_network",
    "checked_guidance",
    "checked_interval",
    "checked_moments",
    "checked_order",
    "checked_rescale",
    "checked_shape",
]


def checked_guidance(guidance: float | Tensor | None, unconditional: object, guide: object) -> float | None:
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
    if not FINITE.holds(guidance):
        raise ValueError(f"Field: guidance must be a finite number or None, not {guidance!r:.60}.")
    if guidance == 1:
        return None
    if unconditional is None and guide is None:
        raise ValueError(
            f"Field: guidance={guidance} needs unconditional={{...}}, the keyword arguments "
            "that make the network unconditional, or guide=..., a weaker model."
        )
    return float(guidance)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not all(isinstance(size, Integral) and size > 0 for size in sizes) or not isinstance(shape, Sequence):
        raise ValueError(f"Field: shape must be sizes of one sample, such as (3, 32, 32), not {shape!r}.")
    return tuple(map(int, sizes))


def checked_interval(interval: Sequence[float]) -> tuple[float, float]:
    ends = tuple(map(UNIT.number, interval)) if isinstance(interval, Sequence) else ()
    if len(ends) != 2 or None in ends or not ends[0] < ends[1]:
        raise ValueError(
            f"Field: guidance_interval must be two increasing times within [0, 1], not {interval!r}."
        )
    return float(ends[0]), float(ends[1])


def checked_rescale(rescale: float | str, unconditional: object, guide: object) -> float | str:
    if not (rescale == "norm" or UNIT.holds(rescale)):
        raise ValueError(
            f"Field: guidance_rescale must be a number in [0, 1], or 'norm', not {rescale!r}; 0 leaves "
            "guidance as it is."
        )
    if rescale != 0 and unconditional is None and guide is None:
        raise ValueError(
            f"Field: guidance_rescale={rescale!r} changes guided predictions, but there is nothing to guide "
            "away from; pass guidance and unconditional={...} or guide=..., or leave it out."
        )
    return rescale if isinstance(rescale, str) else float(UNIT.number(rescale))


def checked_moments(
    moments: tuple[float | Tensor, float | Tensor] | None,
) -> tuple[float | Tensor, float | Tensor] | None:
    if moments is None:
        return None
    pair = tuple(moments) if isinstance(moments, Sequence) else ()
    for given, allowed in zip(pair, (FINITE, NOT_NEGATIVE), strict=False):
        ends = torch.as_tensor(given).aminmax() if isinstance(given, Tensor) else (given, given)
        if not all(map(allowed.holds, ends)):
            pair = ()
    if len(pair) != 2:
        raise ValueError(
            "Field: data_moments must be the mean and the standard deviation of the data, two finite numbers "
            f"or tensors, the latter of at least 0, not {moments!r:.60}."
        )
    mean, scale = (given if isinstance(given, Tensor) else FINITE.number(given) for given in pair)
    return mean, scale


def check_network(label: str, network: Callable[..., Tensor]) -> None:
    if not callable(network):
        raise ValueError(f"Field: {label} must be callable as model(x, t), not {type(network).__name__}.")
    if isinstance(network, nn.Module) and network.training:
        warnings.warn(
            f"Field: {type(network).__name__} is in training mode, so dropout and batch "
            "statistics disturb the ODE; call model.eval() first.",
            stacklevel=3,
        )


def checked_order(x: object, t: Any) -> Any:
    """Return the time of a call of a field, a number as one of Python.

    Raise a ``TypeError`` for a time in the place of the states, as solvers of ``f(t, y)`` pass it.
    Raise a ``ValueError`` for a number outside [0, 1], or a tensor of another shape, whose numbers are not
    read, as they may be on a device.
    """
    if not isinstance(x, Tensor) or x.ndim == 0 or (isinstance(t, Tensor) and t.ndim > 1):
        raise TypeError(
            "Field: it is called as field(x, t), with states of shape (B, ...) and a time of shape () or "
            f"(B,), not with {_described(x)} and {_described(t)}; give field.time_first() to solvers that "
            "call f(t, y), such as torchdiffeq's."
        )
    if torch.compiler.is_compiling():
        return t
    if not (t.shape in ((), (1,), x.shape[:1]) if isinstance(t, Tensor) else UNIT.holds(t)):
        raise ValueError(
            f"Field: t must be a time in [0, 1], a number or a tensor of shape () or ({len(x)},), not "
            f"{t!r:.60}."
        )
    return t if isinstance(t, Tensor) else UNIT.number(t)


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, Real) else f"a {type(value).__name__}"
