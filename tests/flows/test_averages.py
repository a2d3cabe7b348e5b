"""Weight averages: what a half-life means."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewstep.flows._averages import Averages


def module(value):
    made = nn.Linear(1, 1, bias=False)
    nn.init.constant_(made.weight, value)
    made.register_buffer("seen", torch.tensor(0))
    return made


def test_after_a_half_life_a_weight_counts_half():
    moving = module(0.0)
    averages = Averages(moving, [100, 400], batch=10)
    nn.init.constant_(moving.weight, 1.0)
    # A tenth of the samples seen exceeds the first half-life from sample 1000 on.
    for step in range(1000, 1010):
        averages.update(step)
    assert averages.models[100].weight.item() == pytest.approx(0.5)
    assert averages.models[400].weight.item() == pytest.approx(1 - 0.5**0.25)


def test_a_young_average_forgets_its_start():
    moving = module(100.0)
    averages = Averages(moving, [10**9], batch=1)
    nn.init.constant_(moving.weight, 1.0)
    for step in range(1, 101):
        averages.update(step)
    assert averages.first.weight.item() == pytest.approx(1, abs=1e-6)


def test_integers_are_taken_over():
    moving = module(0.0)
    averages = Averages(moving, [100], batch=1)
    moving.seen.fill_(7)
    averages.update(1)
    assert averages.first.seen.item() == 7
    assert not averages.first.weight.requires_grad
    assert not averages.first.training


def test_weights_that_are_loaded_later_are_averaged_too():
    """A resumed run loads its checkpoint into the modules that the averages were made of."""
    moving = module(0.0)
    averages = Averages(moving, [10**9], batch=1)
    moving.load_state_dict(module(1.0).state_dict())
    averages.models[10**9].load_state_dict(module(1.0).state_dict())
    averages.update(10**9)
    assert averages.first.weight.item() == 1
