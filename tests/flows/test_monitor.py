"""What is watched: the aggregate law of noises, against samples whose law is known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from fewstep.flows._monitor import aggregate_posterior, spread


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
