"""The losses of distillation, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fewstep.flows import LOSSES, feature_mse, mse, pseudo_huber

X = torch.tensor([[[3.0, 0.0]], [[1.0, 2.0]]])
X1 = torch.tensor([[[0.0, 4.0]], [[1.0, 2.0]]])


def test_the_mean_square_by_hand():
    assert mse(X, X1).item() == pytest.approx((9 + 16) / 4)


def test_the_pseudo_huber_loss_by_hand():
    """Norms 5 and 0 in two dimensions: (sqrt(25 + c^2) - c + 0) / 2 with c = 0.00054 sqrt(2)."""
    c = 0.00054 * math.sqrt(2)
    assert pseudo_huber(X, X1).item() == pytest.approx((math.sqrt(25 + c**2) - c) / 2)
    small = X1 + c / math.sqrt(2)  # norms c: (sqrt(2) - 1) c
    assert pseudo_huber(small.double(), X1.double()).item() == pytest.approx((math.sqrt(2) - 1) * c, rel=1e-3)


def test_the_pseudo_huber_loss_is_smooth_where_there_is_no_error():
    x = X1.clone().requires_grad_()
    pseudo_huber(x, X1).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_features_are_compared_by_a_frozen_copy():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.Dropout(0.5))
    loss = feature_mse(features)
    x = X.clone().requires_grad_()
    value = loss(x, X1)
    W = features[1].weight.detach()
    expected = ((X - X1).flatten(1) @ W.T).square().mean()
    torch.testing.assert_close(value.detach(), expected)
    value.backward()
    torch.testing.assert_close(x.grad.flatten(1), 2 * (X - X1).flatten(1) @ W.T @ W / 6)
    assert features.training
    assert features[1].weight.requires_grad
    assert features[1].weight.grad is None
    assert loss.__name__ != feature_mse(nn.Sequential(nn.Flatten(), nn.Linear(2, 3))).__name__


def test_losses_by_name():
    assert LOSSES == {"mse": mse, "pseudo_huber": pseudo_huber}
