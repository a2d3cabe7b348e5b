import math

import numpy as np
import pytest
import torch

import fewstep as fs

X = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2, 3)))
Y = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 2, 3)))


def mean_squares():
    return ((X.numpy() - Y.numpy()).reshape(5, 6) ** 2).mean(axis=1)


def test_per_sample_mse_is_the_mean_over_dimensions():
    np.testing.assert_allclose(fs.metrics.per_sample_mse(X, Y), mean_squares(), rtol=1e-14)


def test_rmse_is_the_mean_of_roots_and_pooled_rmse_the_root_of_the_mean():
    assert float(fs.metrics.rmse(X, Y)) == pytest.approx(np.sqrt(mean_squares()).mean())
    assert float(fs.metrics.pooled_rmse(X, Y)) == pytest.approx(math.sqrt(mean_squares().mean()))
    assert fs.metrics.rmse(X, Y) < fs.metrics.pooled_rmse(X, Y)


def test_psnr_is_the_mean_of_decibels():
    expected = np.mean(10 * np.log10(4 / mean_squares()))
    assert float(fs.metrics.psnr(X, Y)) == pytest.approx(expected)


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_psnr_of_a_constant_error_follows_from_the_rmse(data_range):
    rmse = float(fs.metrics.rmse(Y + 0.1, Y))
    psnr = float(fs.metrics.psnr(Y + 0.1, Y, data_range=data_range))
    assert rmse == pytest.approx(0.1)
    assert psnr == pytest.approx(20 * math.log10(data_range / rmse))


def test_of_an_exact_sample_errors_are_zero_and_psnr_is_finite():
    assert float(fs.metrics.rmse(X, X)) == float(fs.metrics.pooled_rmse(X, X)) == 0
    assert 1000 < float(fs.metrics.psnr(X, X)) < math.inf
    assert 300 < float(fs.metrics.mean_psnr(torch.zeros(2))) < math.inf  # whose range is narrower


def test_half_precision_samples_are_measured_in_double():
    x = torch.full((2, 4), 300.0, dtype=torch.float16)
    assert float(fs.metrics.rmse(x, -x)) == 600  # whose square overflows float16
    assert fs.metrics.per_sample_mse(x, x).dtype == torch.float64


def test_every_metric_has_its_name():
    assert set(fs.metrics.METRICS) >= {"rmse", "psnr", "pooled_rmse"}
    for name, metric in fs.metrics.METRICS.items():
        assert metric.name == name
        assert fs.metrics.figure(name) is metric


@pytest.mark.parametrize(
    ("name", "label", "axis", "gain"),
    [
        ("psnr", "PSNR", "PSNR to the reference (dB)", True),
        ("recall", "recall", "recall", True),
        ("kid", "KID", "KID", False),
        ("frechet_own_net", "Fréchet distance", "Fréchet distance, own_net features", False),
        ("kernel_mnist", "kernel distance", "kernel distance, mnist features", False),
        ("rmse_low", "rmse_low", "rmse_low", False),
    ],
)
def test_a_column_has_words_and_a_direction(name, label, axis, gain):
    found = fs.metrics.figure(name)
    assert (found.label, found.axis, found.gain) == (label, axis, gain)
