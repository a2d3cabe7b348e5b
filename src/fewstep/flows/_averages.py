"""Exponential moving averages of weights, and mean losses."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Averages", "Meter"]


_Module = TypeVar("_Module", bound=nn.Module)


class Averages(Generic[_Module]):
    """Averages of a module's weights, one per half-life.

    Early in training the half-life is limited to a tenth of the samples seen, so that the initial weights
    are forgotten (the EMA ramp-up of EDM; Karras et al. 2022). Buffers are averaged, too.

    Args:
        module: the module; its tensors are looked up once, as walking through it would take longer than
            averaging.
        half_lives: half-lives in samples.
        batch: samples per update.
    """

    def __init__(self, module: _Module, half_lives: Sequence[int], batch: int) -> None:
        self.batch = batch
        self.models: dict[int, _Module] = {
            half_life: copy.deepcopy(module).requires_grad_(False).eval() for half_life in half_lives
        }
        self._current = _tensors(module)
        self._averaged = {half_life: _tensors(model) for half_life, model in self.models.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after optimiser step ``step`` (counted from 1)."""
        for half_life, (weights, others) in self._averaged.items():
            effective = min(half_life, 0.1 * step * self.batch)
            torch._foreach_lerp_(weights, self._current[0], 1 - 0.5 ** (self.batch / effective))
            if others:
                torch._foreach_copy_(others, self._current[1])

    @property
    def first(self) -> _Module:
        """The average with the first half-life."""
        return next(iter(self.models.values()))


def _tensors(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters and buffers to average (floating point), and those to copy (all others)."""
    found = list(chain(module.parameters(), module.buffers()))
    return [x for x in found if x.is_floating_point()], [x for x in found if not x.is_floating_point()]


class Meter:
    """Mean losses, summed on the device, and speed between two lines of metrics."""

    def __init__(self, step: int) -> None:
        self.reset(step)

    def reset(self, step: int) -> None:
        self.since, self._count, self._started = step, 0, time.perf_counter()
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        self._count += 1
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss

    def means(self) -> dict[str, Tensor]:
        return {name: total / self._count for name, total in self._sums.items()}

    def rate(self, step: int) -> float:
        """Return steps per second since the last reset."""
        return (step - self.since) / (time.perf_counter() - self._started)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent in this context."""
        before = time.perf_counter()
        yield
        self._started += time.perf_counter() - before
