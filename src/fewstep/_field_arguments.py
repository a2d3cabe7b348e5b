"""Checks of the arguments of a field."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real

from torch import Tensor, nn

__all__ = [
    "check_network",
    "check_order",
    "checked_guidance",
    "checked_interval",
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


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not all(isinstance(size, Integral) and size > 0 for size in sizes) or not isinstance(shape, Sequence):
        raise ValueError(f"Field: shape must be sizes of one sample, such as (3, 32, 32), not {shape!r}.")
    return tuple(map(int, sizes))


def checked_interval(interval: Sequence[float]) -> tuple[float, float]:
    ends = tuple(interval) if isinstance(interval, Sequence) else ()
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(
            f"Field: guidance_interval must be two increasing times within [0, 1], not {interval!r}."
        )
    return float(ends[0]), float(ends[1])


def checked_rescale(rescale: float | str, unconditional: object, guide: object) -> float | str:
    number = isinstance(rescale, Real) and not isinstance(rescale, bool)
    if not (rescale == "norm" or (number and 0 <= float(rescale) <= 1)):
        raise ValueError(
            f"Field: guidance_rescale must be a number in [0, 1], or 'norm', not {rescale!r}; 0 leaves "
            "guidance as it is."
        )
    if rescale != 0 and unconditional is None and guide is None:
        raise ValueError(
            f"Field: guidance_rescale={rescale!r} changes guided predictions, but there is nothing to guide "
            "away from; pass guidance and unconditional={...} or guide=..., or leave it out."
        )
    return rescale if isinstance(rescale, str) else float(rescale)


def check_network(label: str, network: Callable[..., Tensor]) -> None:
    if not callable(network):
        raise ValueError(f"Field: {label} must be callable as model(x, t), not {type(network).__name__}.")
    if isinstance(network, nn.Module) and network.training:
        warnings.warn(
            f"Field: {type(network).__name__} is in training mode, so dropout and batch "
            "statistics disturb the ODE; call model.eval() first.",
            stacklevel=3,
        )


def check_order(x: object, t: object) -> None:
    """Raise a ``TypeError`` for a time in the place of the states, as solvers of ``f(t, y)`` pass it."""
    swapped = not isinstance(x, Tensor) or x.ndim == 0 or (isinstance(t, Tensor) and t.ndim > 1)
    if swapped:
        raise TypeError(
            "Field: it is called as field(x, t), with states of shape (B, ...) and a time of shape () or "
            f"(B,), not with {_described(x)} and {_described(t)}; give field.time_first() to solvers that "
            "call f(t, y), such as torchdiffeq's."
        )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, Real) else f"a {type(value).__name__}"
