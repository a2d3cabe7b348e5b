import math

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from fewstep.metrics import Moments, frechet_distance


def draw(seed, count, d, mean=0.0):
    """Correlated features."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(mean + rng.normal(size=(count, d)) @ rng.normal(size=(d, d)) / math.sqrt(d))


def gaussian(tmp_path, mu, sigma):
    """Moments of a law instead of a sample, by way of a file."""
    path = tmp_path / "law.npz"
    np.savez(path, mu=np.asarray(mu, float), sigma=np.asarray(sigma, float))
    return Moments.load(path)


def test_gaussians_on_the_line(tmp_path):
    a, b = gaussian(tmp_path, [1], [[4]]), gaussian(tmp_path, [-2], [[9]])
    assert frechet_distance(a, b) == pytest.approx(3**2 + (2 - 3) ** 2)


def test_covariances_that_commute(tmp_path):
    """Deviations along common axes are subtracted one by one."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    s, t = np.array([1, 2, 3, 0.5]), np.array([2, 2, 0, 1.5])
    a = gaussian(tmp_path, np.zeros(4), axes @ np.diag(s**2) @ axes.T)
    b = gaussian(tmp_path, np.ones(4), axes @ np.diag(t**2) @ axes.T)
    expected = 4 + ((s - t) ** 2).sum()
    # The direction of rank zero leaves the root of rounding.
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_covariances_in_the_plane_that_do_not_commute(tmp_path):
    """In the plane ``tr M^1/2 = sqrt(tr M + 2 sqrt(det M))``, here of ``M = S T``."""
    S, T = np.array([[2, 1], [1, 3]]), np.array([[5, -2], [-2, 1]])
    root = math.sqrt(np.trace(S @ T) + 2 * math.sqrt(np.linalg.det(S) * np.linalg.det(T)))
    found = frechet_distance(gaussian(tmp_path, [0, 1], S), gaussian(tmp_path, [2, 0], T))
    assert found == pytest.approx(5 + 5 + 6 - 2 * root, rel=1e-12)


def test_samples_come_to_the_distance_of_their_laws(tmp_path):
    S, T = np.array([[2, 1], [1, 3]]), np.array([[5, -2], [-2, 1]])
    exact = frechet_distance(gaussian(tmp_path, [0, 1], S), gaussian(tmp_path, [2, 0], T))
    rng = np.random.default_rng(3)
    x, y = rng.multivariate_normal([0, 1], S, 200_000), rng.multivariate_normal([2, 0], T, 200_000)
    found = frechet_distance(Moments.of(torch.from_numpy(x)), Moments.of(torch.from_numpy(y)))
    assert found == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(("count", "other"), [(50, 80), (12, 80), (80, 12), (9, 12)])
def test_it_is_that_of_torchmetrics(count, other):
    """With more and with fewer vectors than their 20 dimensions."""
    x, y = draw(1, count, 20), draw(2, other, 20, mean=0.3)
    network = torch.nn.Identity()
    network.num_features = 20
    theirs = FrechetInceptionDistance(feature=network)
    for batch in x.split(8):
        theirs.update(batch, real=True)
    theirs.update(y, real=False)
    found = frechet_distance(Moments.of(x), Moments.of(y))
    # Rounding in null directions weighs by its root in their product of covariances.
    assert found == pytest.approx(theirs.compute().item(), rel=1e-10 if min(count, other) > 20 else 1e-5)


@pytest.mark.parametrize(("count", "other"), [(12, 80), (80, 12), (9, 12)])
def test_fewer_vectors_than_dimensions(count, other):
    """The overlap is the sum of the singular values of the product of the centred features."""
    x, y = draw(1, count, 20).numpy(), draw(2, other, 20).numpy()
    factors = [(z - z.mean(axis=0)) / math.sqrt(len(z) - 1) for z in (x, y)]
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum((factor**2).sum() for factor in factors)
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + spread - 2 * overlap
    found = frechet_distance(*(Moments.of(torch.from_numpy(z)) for z in (x, y)))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [5, 100])
def test_equal_sets_are_at_distance_zero_and_shifted_ones_at_the_square_of_the_shift(count):
    x = draw(4, count, 20)
    assert 0 <= frechet_distance(Moments.of(x), Moments.of(x)) < 1e-9
    assert frechet_distance(Moments.of(x), Moments.of(x + 2)) == pytest.approx(20 * 4, rel=1e-10)


def test_it_does_not_depend_on_the_axes_and_scales_with_the_square():
    x, y = draw(5, 60, 6), draw(6, 70, 6)
    axes = torch.linalg.qr(draw(7, 6, 6)).Q
    found = frechet_distance(Moments.of(x), Moments.of(y))
    assert frechet_distance(Moments.of(y), Moments.of(x)) == pytest.approx(found, rel=1e-10)
    turned = frechet_distance(Moments.of(3 * x @ axes + 1), Moments.of(3 * y @ axes + 1))
    assert turned == pytest.approx(9 * found, rel=1e-10)


def test_what_cannot_be_compared():
    x = draw(8, 10, 3)
    with pytest.raises(ValueError, match="the same number of dimensions, not 3 and 2"):
        frechet_distance(Moments.of(x), Moments.of(x[:, :2]))
    with pytest.raises(ValueError, match="a covariance needs at least 2 feature vectors"):
        frechet_distance(Moments.of(x), Moments.of(x[:1]))
    broken = x.clone()
    broken[3, 1] = math.nan
    with pytest.raises(ValueError, match="the features of b hold NaN or infinity"):
        frechet_distance(Moments.of(x), Moments.of(broken))


def test_rounding_leaves_no_negative_distance():
    """Of sets that are equal up to their order, some would be at -1e-15."""
    for seed in range(20):
        x = draw(seed, 50, 6)
        found = frechet_distance(Moments.of(x), Moments.of(x.flip(0)))
        assert 0 <= found < 1e-9
