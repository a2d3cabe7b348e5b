"""Checks of the arguments of sampling, and its recorded path."""

from __future__ import annotations

from collections.abc import Iterable
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


def check_noise(x0: Tensor) -> None:
    """Raise a ``ValueError`` unless ``x0`` is a batch of noise."""
    if not isinstance(x0, Tensor) or not x0.is_floating_point() or x0.ndim < 1:
        got = f"{x0.dtype} of shape {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
        raise ValueError(f"x0: must be a floating-point tensor of shape (B, ...), not {got}.")


def check_conditions(names: Iterable[str]) -> None:
    """Raise a ``TypeError`` if a condition looks like a misspelt option of :meth:`fewstep.Solver.sample`."""
    own = ("trajectory", "progress", "differentiable", "callback")
    for name in names:
        for meant in get_close_matches(name, own, n=1, cutoff=0.8):
            raise TypeError(
                f"sample: there is no argument {name!r}; did you mean {meant}? A condition of that name must "
                "be put into the network beforehand, as by functools.partial."
            )
