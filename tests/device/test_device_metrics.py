"""Metrics, comparisons, checks and closed forms on the device."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch

import fewstep as fs
from fewstep import metrics
from fewstep.comparison import FeatureQuality
from fewstep.metrics import Moments
from fewstep.metrics.features import feature_matrix, feature_moments, load, quantize
from fewstep.schedules import VP, CondOT

pytestmark = pytest.mark.device


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 5, generator=generator) for count in (40, 50, 30)]


def test_errors_of_samples(device, close):
    x, y = (fs.noise(6, (2, 3), seed=seed) for seed in (0, 1))
    for name in ("rmse", "pooled_rmse", "psnr", "per_sample_mse"):
        measure = getattr(metrics, name)
        close(measure(x.to(device), y.to(device)), measure(x, y))
    mse = metrics.per_sample_mse(x, y)
    for name in metrics.METRICS:
        found = metrics.estimate_error(name, mse.to(device))
        assert found.value == pytest.approx(metrics.estimate_error(name, mse).value)
    found = metrics.paired_difference(mse.to(device), 2 * mse.to(device))
    assert found.value == pytest.approx(metrics.paired_difference(mse, 2 * mse).value)


@pytest.mark.parametrize("name", ["curvature", "relative_curvature", "straightness"])
def test_shapes_of_paths(both, each, close, name):
    x0, solver, measure = fs.noise(6, (3,)), fs.classical.midpoint(4), getattr(metrics, name)
    expected, found = each(both(), lambda f: measure(solver.sample(f, x0.to(f.device), trajectory=True)))
    close(found, expected, rtol=1e-3)


def test_some_paths_have_points_at_times_of_their_own(device, close):
    x, some = fs.noise(6, (3,)), torch.tensor([1, 4])
    found = []
    for place in ("cpu", device):
        meter = metrics.CurvatureMeter(x.to(place))
        meter.add(2 * x.to(place), 0.25)
        meter.add(x[some].to(place), torch.tensor([0.5, 0.75]), some)
        meter.add(0 * x.to(place), 1.0)
        found.append((meter.curvature(), meter.displacement()))
    for here, there in zip(*found, strict=True):
        close(there, here)


def test_a_path_is_measured_without_waiting(both, device, waits):
    _, there = both()
    path = fs.classical.euler(8).sample(there, fs.noise(6, (3,), device=device), trajectory=True)
    times = path.times.tolist()
    waits.clear()
    metrics.CurvatureMeter.along(path.states, times).curvature()
    assert not waits


def test_distances_of_features(device, features):
    x, y, z = features
    there = [part.to(device) for part in features]
    expected = metrics.frechet_distance(Moments.of(x), Moments.of(y))
    for pair in (there[:2], [there[0], y], [x, there[1]]):
        assert metrics.frechet_distance(*map(Moments.of, pair)) == pytest.approx(expected, rel=1e-6)
    options = {"subset": 20, "subsets": 3}
    found, expected = metrics.kernel_distance(*there[:2], **options), metrics.kernel_distance(x, y, **options)
    assert found.mean == pytest.approx(expected.mean, rel=1e-6)
    found, expected = metrics.squared_mmd(*there[:2], block=16), metrics.squared_mmd(x, y, block=16)
    assert found == pytest.approx(expected, rel=1e-6)
    found, expected = metrics.precision_recall(*there[:2]), metrics.precision_recall(x, y)
    assert astuple(found) == pytest.approx(astuple(expected), rel=1e-6)
    found, expected = metrics.nearest_neighbours(*there), metrics.nearest_neighbours(x, y, z)
    assert found.indices.tolist() == expected.indices.tolist()
    assert (found.ratio, found.share_near) == pytest.approx((expected.ratio, expected.share_near))


def test_moments(device, features, tmp_path):
    x, y = (part.to(device) for part in features[:2])
    union = Moments.of(x) + Moments.of(y)
    torch.testing.assert_close(union.mean.cpu(), torch.cat(features[:2]).double().mean(0))
    mixed = Moments.of(x) + Moments.of(y.cpu())
    torch.testing.assert_close(mixed.covariance.cpu(), union.covariance.cpu())
    assert union.over_processes().count == 90
    union.save(tmp_path / "moments.npz")
    loaded = Moments.load(tmp_path / "moments.npz")
    assert metrics.frechet_distance(loaded, union) == pytest.approx(0, abs=1e-6)


def test_inversion(both, each):
    x1, solver = fs.noise(6, (3,)), fs.classical.midpoint(3)
    expected, found = each(both(), lambda f: metrics.inversion_error(f, solver, x1.to(f.device), batch=4))
    assert found.error.value == pytest.approx(expected.error.value, rel=0.05)


def test_a_comparison(both, each):
    """Of points in the plane, whose paths are kept."""
    pytest.importorskip("torchdiffeq")
    fields = both(network=fs.models.random_mixture(2, 4), shape=(2,), name="mixture")
    options = {
        "noise": 12,
        "metrics": list(metrics.METRICS),
        "batch": 5,
        "keep": 3,
        "rtol": 1e-4,
        "atol": 1e-4,
    }
    solvers = [fs.classical.named("deis3", 4), fs.classical.midpoint(2)]
    expected, found = each(fields, lambda field: fs.compare(field, solvers, **options))
    for row, other in zip(found.rows, expected.rows, strict=True):
        for name in metrics.METRICS:
            assert row[name] == pytest.approx(other[name], rel=1e-2)
        assert row["milliseconds"] > 0
    curvatures = [made.protocol["curvature"]["relative"] for made in (found, expected)]
    assert curvatures[0] == pytest.approx(curvatures[1], rel=1e-3)
    assert found.protocol["device"] != "cpu"
    assert all(samples.device.type == "cpu" for samples in found.kept.samples)


def test_features_of_pictures(device, close):
    pictures = 2 * torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)) - 1
    network, expected = load("mnist", device), feature_matrix(pictures, load("mnist"))
    for given in (pictures, pictures.to(device)):
        torch.testing.assert_close(feature_matrix(given, network, batch=4), expected, rtol=1e-3, atol=1e-3)
        moments = feature_moments(given, network, batch=4)
        close(moments.mean.float(), expected.mean(dim=0), rtol=1e-3, atol=1e-3)


def test_a_network_in_torchscript(real, torchscript, close):
    pictures = torch.randint(0, 255, (4, 3, 16, 16), dtype=torch.uint8)
    path = torchscript()
    found = load(path, real, name="tiny")(pictures.to(real))
    close(found, load(path, name="tiny")(pictures), rtol=1e-3, atol=1e-3)


def test_a_comparison_of_pictures(both, each):
    """In the features of the bundled classifier, which is on the device too."""
    pytest.importorskip("torchdiffeq")
    means = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) / 4
    mixture = fs.models.GaussianMixture(means, 0.2)
    data = mixture.sample_data(32, torch.Generator().manual_seed(1)).float()

    def compare(field):
        network = load("mnist", field.device)
        real = network(quantize(data.to(field.device)))
        options = {"noise": 16, "batch": 8, "rtol": 1e-3, "atol": 1e-3}
        quality = FeatureQuality(network, Moments.of(real), real)
        return fs.compare(field, fs.classical.euler(4), quality=quality, **options).rows[0]

    expected, found = each(both(network=mixture, shape=(1, 28, 28), name="mixture"), compare)
    for name in ("frechet_mnist", "kernel_mnist", "precision", "coverage"):
        assert found[name] == pytest.approx(expected[name], rel=0.05, abs=0.05)


@pytest.mark.parametrize(
    ("schedule", "prediction", "known"), [(CondOT(), "velocity", False), (VP(), "noise", True)], ids=str
)
def test_checks(both, each, schedule, prediction, known):
    mixture = fs.models.random_mixture(3, 4, schedule=schedule, prediction=prediction)
    data = mixture.sample_data(64, torch.Generator().manual_seed(0)).float()
    fields = both(schedule, prediction, network=mixture, clock=(0, 1))
    expected, found = each(fields, lambda f: fs.check(f, data.to(f.device) if known else None, samples=64))
    assert (found.ok, found.suggestion) == (expected.ok, expected.suggestion)
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)


def test_data_of_a_mixture_are_drawn_by_any_generator(device, close):
    mixture = fs.models.random_mixture(3, 4)
    expected = mixture.sample_data(9, torch.Generator().manual_seed(0))
    there = fs.models.GaussianMixture(mixture.means.to(device), 0.1, [0.1, 0.2, 0.3, 0.4])
    assert there(expected.to(device), torch.full((9,), 0.5, device=device)).device.type == "cuda"
    mixture = mixture.to(device)
    close(mixture.sample_data(9, torch.Generator().manual_seed(0)), expected)
    close(mixture.log_prob(expected.to(device)), fs.models.random_mixture(3, 4).log_prob(expected))
    assert mixture.sample_data(9, torch.Generator(device).manual_seed(0)).shape == (9, 3)
