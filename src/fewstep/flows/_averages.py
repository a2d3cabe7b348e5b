"""Exponential moving averages of weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Averages"]


_Module = TypeVar("_Module", bound=nn.Module)


class Averages(Generic[_Module]):
    """Averages of a module's weights, one for each half-life.

    A young average forgets faster, with a half-life of at most a tenth of the samples seen, or it would
    remember the initial weights (as EDM ramps up its average; Karras et al. 2022).

    Args:
        module: what is averaged, buffers included; its tensors are looked up here, once, as walking through
            the module at every step takes longer than averaging.
        half_lives: in samples; after so many, a weight counts half.
        batch: samples between two updates.
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
        """Take in the weights after optimiser step ``step`` (counted from 1)."""
        for half_life, (weights, others) in self._averaged.items():
            effective = min(half_life, 0.1 * step * self.batch)
            torch._foreach_lerp_(weights, self._current[0], 1 - 0.5 ** (self.batch / effective))
            if others:
                torch._foreach_copy_(others, self._current[1])

    def __getitem__(self, half_life: int) -> _Module:
        return self.models[half_life]

    @property
    def first(self) -> _Module:
        """The average with the first half-life."""
        return next(iter(self.models.values()))


def _tensors(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers: those that can be averaged, and those that can only be copied."""
    found = list(chain(module.parameters(), module.buffers()))
    return [x for x in found if x.is_floating_point()], [x for x in found if not x.is_floating_point()]
