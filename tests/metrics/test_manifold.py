import numpy as np
import pytest
import torch

from fewstep.metrics import precision_recall
from fewstep.metrics._features import nearest


def draw(seed, count, d=4, mean=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(mean, 1, size=(count, d)))


def literal(real, generated, k, density_k):
    """The definitions, with every distance in one matrix."""

    def distances(x, y):
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=2))

    def radii(x, k):
        return np.sort(distances(x, x), axis=1)[:, k]  # column 0 is the vector itself

    across = distances(generated, real)
    dense = across <= radii(real, density_k)
    return (
        (across <= radii(real, k)).any(axis=1).mean(),
        (across <= radii(generated, k)[:, None]).any(axis=0).mean(),
        dense.sum() / (density_k * len(generated)),
        dense.any(axis=0).mean(),
    )


def values(found):
    return found.precision, found.recall, found.density, found.coverage


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize(("k", "density_k"), [(3, 5), (1, 1), (6, 2)])
def test_it_is_the_definition_in_any_blocks(k, density_k, block):
    real, generated = draw(0, 60), draw(1, 50, mean=0.8)
    found = precision_recall(real, generated, k=k, density_k=density_k, block=block)
    assert values(found) == pytest.approx(literal(real.numpy(), generated.numpy(), k, density_k), rel=1e-12)


def test_by_default_k_is_three_and_five():
    real, generated = draw(2, 60), draw(3, 50, mean=0.8)
    expected = literal(real.numpy(), generated.numpy(), 3, 5)
    assert values(precision_recall(real, generated)) == pytest.approx(expected, rel=1e-12)


def test_far_from_zero_nothing_is_lost():
    """Products of the features as they are would lose all distances."""
    real, generated = draw(4, 60), draw(5, 50, mean=0.8)
    expected = literal(real.numpy(), generated.numpy(), 3, 5)
    assert values(precision_recall(real + 1e8, generated + 1e8)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("block", [16, 1000])
def test_equal_sets(block):
    """Each vector lies in its own ball and in those of k others on average."""
    x = draw(6, 80)
    assert values(precision_recall(x, x, block=block)) == pytest.approx((1, 1, 6 / 5, 1))


def test_sets_apart():
    assert values(precision_recall(draw(7, 30), draw(8, 30, mean=100.0))) == (0, 0, 0, 0)


def test_samples_in_one_corner_of_the_data_are_precise_and_recall_little():
    real = draw(9, 300, 2)
    corner = real[:100] * 0.01
    found = precision_recall(real, corner)
    assert found.precision > 0.95
    assert found.recall < 0.1
    assert found.coverage < 0.1
    turned = precision_recall(corner, real)
    assert (turned.precision, turned.recall) == (found.recall, found.precision)


def test_of_equal_laws_density_is_about_one():
    found = precision_recall(draw(10, 1500, 3), draw(11, 1500, 3))
    assert found.density == pytest.approx(1, abs=0.05)
    # A ball of k neighbours is missed by as many samples with chance 2^-k.
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.015)


def test_repeated_vectors_have_balls_of_no_size_that_hold_their_copies():
    x = draw(12, 10).repeat_interleave(8, dim=0)
    assert values(precision_recall(x, x[::8].repeat(4, 1) + 0.0)) == pytest.approx((1, 1, 8 / 5, 1))


def test_it_reads_well():
    assert str(precision_recall(draw(13, 30), draw(14, 30, mean=100.0))) == (
        "precision 0.000, recall 0.000, density 0.000, coverage 0.000"
    )


def test_what_does_not_fit():
    x = draw(15, 10)
    with pytest.raises(ValueError, match="than the number of neighbours, not k=3, density_k=10"):
        precision_recall(x, x, density_k=10)
    with pytest.raises(ValueError, match="each set larger than the number of neighbours"):
        precision_recall(x, x[:3])
    with pytest.raises(ValueError, match="generated holds NaN"):
        precision_recall(x, x * torch.nan)
    with pytest.raises(ValueError, match="real has 4 on cpu, generated has 3 on cpu"):
        precision_recall(x, x[:, :3])


@pytest.mark.parametrize("block", [30, 1000])
def test_equal_vectors_are_at_no_distance_whatever_rounding_leaves(block):
    x = draw(8, 200, d=64, mean=3.0)
    squares, indices = nearest(x, x, 1, block)
    assert (squares == 0).all()
    assert torch.equal(indices[:, 0], torch.arange(200))
