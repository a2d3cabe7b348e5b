"""Checks of the arguments of sampling, and its recorded path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from torch import Tensor

__all__ = ["Path", "check_conditions", "check_noise"]


class Path(NamedTuple):
    """A recorded sampling.

    Shape:
        ``x1``: like the noise, ``(B, ...)``; ``states``: ``(P, B, ...)``, the trajectory points, noise
        first, float32 at least; ``times``: ``(P,)``, their times; ``predictions``: ``(N, B, ...)``, those of
        the network at each call (at an end of time where the network's prediction does not determine the one
        that the table reads, the estimate of the latter); ``call_times``: ``(N,)``.
    """

    x1: Tensor
    states: Tensor
    times: Tensor
    predictions: Tensor
    call_times: Tensor


def check_noise(x0: Tensor, name: str = "x0", some: bool = False) -> None:
    """Raise a ``ValueError`` unless the argument of this name is a batch of noise, not empty if ``some``."""
    if not isinstance(x0, Tensor) or not x0.is_floating_point() or x0.ndim < 1 or (some and not len(x0)):
        got = f"{x0.dtype} of shape {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
        least = "with B at least 1, " if some else ""
        raise ValueError(f"{name}: must be a floating-point tensor of shape (B, ...), {least}not {got}.")


def check_conditions(
    names: Iterable[str],
    function: str = "sample",
    own: Sequence[str] = ("trajectory", "progress", "differentiable", "check", "callback", "noises"),
) -> None:
    """Raise a ``TypeError`` for a condition that is a misspelt option of a function, or a mapping of them."""
    for name in names:
        if name in ("conditions", "per_sample"):
            raise TypeError(
                f"{function}: takes conditions by name, as in {function}(field, x0, label=labels), not "
                f"{name}=; field.bind(conditions, per_sample, count) takes the mappings of other functions."
            )
        for meant in get_close_matches(name, own, n=1, cutoff=0.8):
            raise TypeError(
                f"{function}: there is no argument {name!r}; did you mean {meant}? A condition of that name "
                "must be put into the network beforehand, as by functools.partial."
            )
