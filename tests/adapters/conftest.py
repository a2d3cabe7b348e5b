"""Exact networks, dressed up as those of each framework, and the velocities they must lead to."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs

SHAPE = (1, 2, 2)
X = fs.noise(6, SHAPE, seed=3, dtype=torch.float64)


def mixture(schedule, prediction):
    means = torch.tensor([[-1.0, 0.4, 0.7, -0.2], [0.9, 0.1, -0.8, 0.5]], dtype=torch.float64)
    return fs.models.GaussianMixture(means.reshape(2, *SHAPE), [0.5, 0.3], [0.3, 0.7], schedule, prediction)


@pytest.fixture
def exact():
    """``exact(schedule, prediction)``: a network whose data have shape (1, 2, 2)."""
    return mixture


@pytest.fixture
def deviation():
    """``deviation(field)``: the largest relative deviation from the exact velocity, at numbers and a batch.

    The exact velocity is that of ``schedule``; it is the field's that is in question.
    """

    def measure(field, schedule, times=(0.01, 0.2, 0.5, 0.65)):
        velocity = mixture(schedule, "velocity")
        errors = []
        batch = torch.linspace(min(times), max(times), len(X), dtype=torch.float64)
        for t in (*times, batch):
            s = torch.as_tensor(t, dtype=torch.float64)
            alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in schedule(s)[:2])
            x = sigma * X + 0.5 * alpha
            expected = velocity(x, s)
            errors.append(float((field(x, t) - expected).abs().max() / expected.abs().max().clamp(min=1)))
        return max(errors)

    return measure
