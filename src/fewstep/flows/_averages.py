"""Exponential moving averages of weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Averages"]

Tensors = tuple[Tensor, ...] | list[Tensor]


class Averages:
    """Averages of a module's weights, one for each half-life.

    A young average forgets faster, with a half-life of at most a tenth of the samples seen, or it would
    remember the initial weights (as EDM ramps up its average; Karras et al. 2022).

    Args:
        module: what is averaged, buffers included.
        half_lives: in samples; after so many, a weight counts half.
        batch: samples between two updates.
    """

    def __init__(self, module: nn.Module, half_lives: Sequence[int], batch: int) -> None:
        self.batch = batch
        self._decay = 0.0
        self.models = {
            half_life: AveragedModel(module, multi_avg_fn=self._average, use_buffers=True).requires_grad_(
                False
            )
            for half_life in half_lives
        }
        for model in self.models.values():
            model.eval()
            model.n_averaged.fill_(1)  # the copy it was made with counts as the first average

    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step ``step`` (counted from 1)."""
        for half_life, model in self.models.items():
            effective = min(half_life, 0.1 * step * self.batch)
            self._decay = 0.5 ** (self.batch / effective)
            model.update_parameters(module)

    def _average(self, averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        if averaged[0].is_floating_point():  # one type at a time
            torch._foreach_lerp_(averaged, current, 1 - self._decay)
        else:
            torch._foreach_copy_(averaged, current)

    def __getitem__(self, half_life: int) -> nn.Module:
        module: nn.Module = self.models[half_life].module
        return module

    @property
    def first(self) -> nn.Module:
        """The average with the first half-life."""
        return self[next(iter(self.models))]
