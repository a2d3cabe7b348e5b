"""What is watched: the aggregate law of noises, against samples whose law is known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import fewstep as fs
from fewstep.flows._monitor import aggregate_posterior, how_straight, spread


def normal(*shape, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_standard_normal_noise_matches():
    facts = aggregate_posterior(normal(4000, 5, 4))
    assert facts["aggregate_mean"] < 0.01
    assert facts["aggregate_variance"] == pytest.approx(1, abs=0.01)
    assert facts["aggregate_norm"] == pytest.approx(1, abs=0.005)
    assert facts["aggregate_ks"] < 1.6 / math.sqrt(4000)


def test_a_shrunk_and_shifted_law_shows():
    facts = aggregate_posterior(normal(4000, 20, scale=0.8, shift=0.3))
    assert facts["aggregate_mean"] == pytest.approx(0.3, rel=0.05)
    assert facts["aggregate_variance"] == pytest.approx(0.64, rel=0.02)
    assert facts["aggregate_variance_min"] < 0.64 < facts["aggregate_variance_max"]
    assert facts["aggregate_ks"] > 0.2


def test_the_distance_of_the_norms_is_scipys():
    z = normal(500, 20, scale=0.9)
    oracle = stats.kstest(z.norm(dim=1).numpy(), stats.chi(20).cdf).statistic
    assert aggregate_posterior(z)["aggregate_ks"] == pytest.approx(oracle, abs=1e-5)


def test_data_are_spread_evenly():
    assert spread(10, 5) == [[0, 2, 4, 6, 8]]
    assert spread(3, 5) == [[0, 1, 2]]
    assert [len(part) for part in spread(10_000, 1024)] == [256] * 4


def test_the_straightness_is_that_of_all_paths_together():
    """u = -x t: 32 and 4 Euler steps multiply the noise by products of 1 - t / n."""
    x0 = normal(70, 3)  # more than are held at once
    field = fs.Field(lambda x, t: -x * t[:, None])
    figures = how_straight(field, x0)
    scale = {n: math.prod(1 - k / n**2 for k in range(n)) for n in (4, 32)}
    size = x0.double().square().mean(1)
    expected = (scale[4] - scale[32]) * size.sqrt().mean()
    assert figures["truncation_rmse_4"] == pytest.approx(abs(float(expected)), rel=1e-4)
    path = fs.classical.euler(32).sample(field, x0, trajectory=True)
    assert figures["curvature"] == pytest.approx(fs.metrics.curvature(path).mean().item(), rel=1e-4)
