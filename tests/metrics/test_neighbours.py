import numpy as np
import pytest
import torch

from fewstep.metrics import NeighbourCheck, nearest_neighbours


def draw(seed, count, d=5):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, d)))


@pytest.mark.parametrize("block", [1, 16, 1000])
def test_distances_and_neighbours_are_those_of_all_pairs(block):
    generated, training, held_out = draw(0, 30), draw(1, 50), draw(2, 20)
    found = nearest_neighbours(generated + 1e5, training + 1e5, held_out + 1e5, block=block)
    for x, distances in ((generated, found.distances), (held_out, found.held_out)):
        expected = np.linalg.norm((x[:, None] - training[None]).numpy(), axis=2)
        np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-9)
    expected = np.linalg.norm((generated[:, None] - training[None]).numpy(), axis=2)
    np.testing.assert_array_equal(found.indices, expected.argmin(axis=1))


def test_copies_are_found_and_counted():
    training = draw(3, 200)
    copied = torch.tensor([7, 7, 150])
    found = nearest_neighbours(torch.cat([draw(4, 97), training[copied]]), training, draw(5, 200), block=64)
    assert found.copies == 3
    assert set(found.nearest(3).tolist()) == {97, 98, 99}
    assert found.indices[97:].tolist() == copied.tolist()
    assert found.share_near >= 0.03


def test_of_one_law_samples_are_as_near_as_held_out_data():
    found = nearest_neighbours(draw(6, 2000), draw(7, 1000), draw(8, 2000))
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert found.share_near == pytest.approx(0.01, abs=0.008)
    assert found.copies == 0


def test_noisy_copies_are_near():
    training = draw(9, 1000)
    found = nearest_neighbours(training[:500] + 0.01 * draw(10, 500), training, draw(11, 1000))
    assert found.ratio < 0.05
    assert found.share_near > 0.99
    assert found.copies == 0
    np.testing.assert_array_equal(found.indices, np.arange(500))


def test_its_numbers_by_hand():
    held_out = torch.arange(1.0, 101.0, dtype=torch.float64)
    distances = torch.tensor([0.0, 1.5, 2.0, 40.0, 60.0], dtype=torch.float64)
    found = NeighbourCheck(distances, torch.zeros(5, dtype=torch.int64), held_out, quantile=0.02)
    assert found.threshold == 3
    assert found.share_near == pytest.approx(3 / 5)
    assert found.ratio == pytest.approx(2 / 50)
    assert found.nearest(2).tolist() == [0, 1]
    assert str(found) == (
        "median distance to the training data 2, 0.040 of that of held-out data; "
        "60.0% of the samples are nearer than 2% of the held-out data are; 1 exact copy"
    )


def test_what_does_not_fit():
    x = draw(12, 10)
    with pytest.raises(ValueError, match="not 10, 10 and 0 vectors"):
        nearest_neighbours(x, x, x[:0])
    with pytest.raises(ValueError, match=r"a quantile in \(0, 1\)"):
        nearest_neighbours(x, x, x, quantile=1.0)
    with pytest.raises(ValueError, match="training holds NaN or infinity"):
        nearest_neighbours(x, x / 0, x)


def test_what_is_almost_a_copy_is_none():
    training = draw(9, 50)
    found = nearest_neighbours(torch.cat([training[:2], training[2:4] + 1e-9]), training, draw(10, 20))
    assert found.copies == 2
