"""The exact mixture against autograd of its log-density, and against draws of it."""

from __future__ import annotations

import math

import pytest
import torch

import fewstep as fs
from fewstep.models import GaussianMixture, random_mixture
from fewstep.schedules import VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE(5.0)]
MEANS = torch.tensor([[0.5, -1.0, 0.2], [-0.7, 0.3, 0.0]], dtype=torch.float64)
STDS, WEIGHTS = [0.3, 0.8], [0.3, 0.7]


def marginal(schedule, t):
    """The law of ``x_t`` by torch.distributions."""
    alpha, sigma = (float(c) for c in schedule(t)[:2])
    std = (alpha**2 * torch.tensor(STDS, dtype=torch.float64) ** 2 + sigma**2).sqrt()
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor(WEIGHTS, dtype=torch.float64)),
        torch.distributions.Independent(
            torch.distributions.Normal(alpha * MEANS, std[:, None].expand(2, 3)), 1
        ),
    )


def score(schedule, x, t):
    """Gradient of log p_t by autograd."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(marginal(schedule, t).log_prob(x).sum(), x)[0]


@pytest.mark.parametrize("schedule", [*SCHEDULES, VE(5.0, 0.1)], ids=repr)
def test_the_density_is_known_at_every_time(schedule):
    network, x = GaussianMixture(MEANS, STDS, WEIGHTS, schedule), fs.noise(4, (3,), dtype=torch.float64)
    times = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    expected = torch.stack([marginal(schedule, t).log_prob(x) for t in times])
    for t, log_prob in zip(times, expected, strict=True):
        torch.testing.assert_close(network.log_prob(x, float(t)), log_prob)
    torch.testing.assert_close(network.log_prob(x, times), expected.diag())
    torch.testing.assert_close(network.log_prob(x), expected[-1])
    assert network.log_prob(x.float()).dtype == torch.float64


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_every_prediction_follows_from_the_score(schedule, t):
    """Tweedie: E[noise | x] = -sigma score, and the rest from x = alpha data + sigma noise."""
    x = fs.noise(20, (3,), dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = schedule(t)
    noise = -sigma * score(schedule, x, t)
    data = (x - sigma * noise) / alpha
    expected = {
        "noise": noise,
        "data": data,
        "velocity": d_alpha * data + d_sigma * noise,
        "v": alpha * noise - sigma * data,
    }
    for prediction, value in expected.items():
        network = GaussianMixture(MEANS, STDS, WEIGHTS, schedule, prediction)
        torch.testing.assert_close(
            network(x, torch.tensor(t, dtype=torch.float64)), value, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_one_gaussian_moves_by_its_closed_form(schedule):
    """d/dt of x(t) = alpha mu + std_t z is the velocity there, by central differences."""
    mu, s, h, t = MEANS[:1], 0.4, 1e-5, 0.6
    z = fs.noise(10, (3,), dtype=torch.float64)

    def x(t):
        alpha, sigma = schedule(t)[:2]
        return alpha * mu + (alpha**2 * s**2 + sigma**2).sqrt() * z

    velocity = GaussianMixture(mu, s, schedule=schedule)(x(t), torch.tensor(t, dtype=torch.float64))
    torch.testing.assert_close(velocity, (x(t + h) - x(t - h)) / (2 * h), rtol=1e-6, atol=1e-7)


def test_far_from_every_mode_the_nearest_one_rules():
    """No overflow and no 0 / 0 where every density underflows."""
    network = GaussianMixture(MEANS, 0.01, prediction="data")
    x = torch.full((2, 3), 1e4, dtype=torch.float64)
    assert bool(network(x, torch.tensor(0.5)).isfinite().all())


@pytest.mark.parametrize("prediction", ["velocity", "noise", "data", "v"])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_both_ends_are_exact(prediction, t):
    """At t = 0, x is noise and the data's mean is expected; at t = 1, x is data and no noise is."""
    x = fs.noise(5, (3,), dtype=torch.float64)
    mean = (torch.tensor(WEIGHTS, dtype=torch.float64)[:, None] * MEANS).sum(0)
    data, noise = (mean.expand_as(x), x) if t == 0 else (x, torch.zeros_like(x))
    expected = {
        "velocity": data - noise,
        "noise": noise,
        "data": data,
        "v": t * noise - (1 - t) * data,
    }[prediction]
    network = GaussianMixture(MEANS, STDS, WEIGHTS, prediction=prediction)
    torch.testing.assert_close(network(x, torch.tensor(t)), expected, rtol=1e-12, atol=1e-12)


def test_shape_type_and_time_are_those_given():
    network = GaussianMixture(torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), 0.2)
    assert network.shape == network.field().shape == (1, 4, 4)
    x = fs.noise(2, (1, 4, 4))
    out = network(x, torch.tensor(0.5))
    assert (out.shape, out.dtype) == (x.shape, torch.float32)
    assert torch.equal(network(x, torch.tensor([0.5, 0.5])), out)


def test_one_standard_deviation_serves_equal_components():
    data = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    network = GaussianMixture(data, 0.25, prediction="data")
    other = GaussianMixture(data, [0.25, 0.25], [0.5, 0.5], prediction="data")
    x = fs.noise(5, (1,), dtype=torch.float64)
    assert torch.equal(network(x, torch.tensor(0.7)), other(x, torch.tensor(0.7)))


def test_drawn_data_have_the_moments_of_the_mixture():
    network = GaussianMixture(MEANS, STDS, WEIGHTS)
    count = 40_000
    x = network.sample_data(count, torch.Generator().manual_seed(0))
    w, s = (torch.tensor(row, dtype=torch.float64) for row in (WEIGHTS, STDS))
    mean = (w[:, None] * MEANS).sum(0)
    var = (w[:, None] * (MEANS**2 + s[:, None] ** 2)).sum(0) - mean**2
    assert float((x.mean(0) - mean).abs().max()) < 5 / math.sqrt(count)
    assert float((x.var(0) / var - 1).abs().max()) < 0.05
    assert torch.equal(x[:5], network.sample_data(count, torch.Generator().manual_seed(0))[:5])


def test_the_flow_carries_noise_to_the_data():
    """Moments of solved samples against those of drawn data."""
    network = random_mixture(2, 4, std=0.3)
    x1 = fs.classical.rk4(40).sample(network, fs.noise(4000, (2,)))
    data = network.sample_data(4000, torch.Generator().manual_seed(1)).float()
    assert float((x1.mean(0) - data.mean(0)).abs().max()) < 0.08
    assert float((x1.T.cov() - data.T.cov()).abs().max()) < 0.1


def test_random_mixtures_have_total_variance_near_one():
    network = random_mixture(200, 100, std=0.3)
    x = network.sample_data(2000, torch.Generator().manual_seed(0))
    assert float(x.var(0).mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(random_mixture(3, 2, seed=1).means, random_mixture(3, 2, seed=1).means)
    assert not torch.equal(random_mixture(3, 2, seed=1).means, random_mixture(3, 2, seed=2).means)


@pytest.mark.parametrize("stds", [0.0, [0.1, -0.1]])
def test_bad_widths_are_named(stds):
    with pytest.raises(ValueError, match="stds must be positive, not"):
        GaussianMixture(MEANS, stds)
