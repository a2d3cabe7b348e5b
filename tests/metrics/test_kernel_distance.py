import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from fewstep.metrics import kernel_distance, squared_mmd


def draw(seed, count, d=6, mean=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(mean, 1, size=(count, d)))


def by_loops(x, y):
    """The unbiased estimator written out, pair by pair."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("block", [1, 4, 100])
def test_it_is_the_sum_over_pairs_in_any_blocks(block):
    x, y = draw(0, 9), draw(1, 7, mean=0.5)
    assert squared_mmd(x, y, block=block) == pytest.approx(by_loops(x.numpy(), y.numpy()), rel=1e-12)
    assert squared_mmd(y, x, block=block) == pytest.approx(squared_mmd(x, y), rel=1e-12)


def test_it_is_that_of_torchmetrics_over_one_subset_of_all():
    x, y = draw(2, 40), draw(3, 40, mean=0.2)
    with pytest.warns(UserWarning, match="save all extracted features"):
        theirs = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=2, subset_size=40)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    found = kernel_distance(x, y, subset=40, subsets=2)
    assert found.mean == pytest.approx(theirs.compute()[0].item(), rel=1e-10)
    assert found.std < 1e-12
    assert found.mean == pytest.approx(squared_mmd(x, y), rel=1e-12)


def test_on_the_line_it_is_that_of_the_moments():
    """There the kernel is ``(x y + 1)^3``, and the distance ``sum_j binom(3, j) (E x^j - E y^j)^2``.

    Of N(1, 1) the moments are 1, 2, 4, of N(0, 1) 0, 1, 0.
    """
    exact = 3 * 1**2 + 3 * (2 - 1) ** 2 + 4**2
    values = [squared_mmd(draw(2 * k, 500, 1, mean=1.0), draw(2 * k + 1, 500, 1)) for k in range(100)]
    assert np.mean(values) == pytest.approx(exact, abs=3 * np.std(values) / 10)


def test_of_equal_laws_it_is_zero_on_average_with_few_samples():
    """Where a biased estimator would be far from it."""
    values = [squared_mmd(draw(2 * k, 8), draw(2 * k + 1, 8)) for k in range(400)]
    assert np.mean(values) == pytest.approx(0, abs=3 * np.std(values) / 20)
    assert min(values) < 0


def test_subsets_scatter_about_the_estimate_of_all():
    x, y = draw(4, 500), draw(5, 600, mean=0.5)
    found = kernel_distance(x, y, subset=100, subsets=200, seed=3)
    assert found.mean == pytest.approx(squared_mmd(x, y), abs=3 * found.std / 200**0.5)
    assert found.std > 0
    assert found == kernel_distance(x, y, subset=100, subsets=200, seed=3)
    assert found != kernel_distance(x, y, subset=100, subsets=200, seed=4)
    assert str(found).endswith("(200 subsets of 100)")


def test_narrow_features_are_multiplied_in_float64():
    x, y = (draw(k, 20).half() for k in (6, 7))
    assert squared_mmd(x, y) == squared_mmd(x.double(), y.double())


def test_what_does_not_fit():
    x = draw(8, 10)
    with pytest.raises(ValueError, match="subset must be from 2 to 10, the vectors of the smaller set"):
        kernel_distance(x, x)
    with pytest.raises(ValueError, match="each set must have at least two vectors"):
        squared_mmd(x, x[:1])
    with pytest.raises(ValueError, match="the same length and device, but x has 6 on cpu, y has 5 on cpu"):
        squared_mmd(x, x[:, :5])
    with pytest.raises(ValueError, match="y holds NaN or infinity"):
        squared_mmd(x, x / 0)
    with pytest.raises(ValueError, match="x must be floating-point feature vectors"):
        kernel_distance(x[0], x)
