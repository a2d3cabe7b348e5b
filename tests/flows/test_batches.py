"""The order of the data: a pure function of seed and position."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from fewstep.flows._batches import Batches, seed_default, stream


def sequence(count, steps, batch, world=1, parts=1, start=0, seed=0):
    """The samples of a run in the order of the whole, put together from all processes."""
    ranks = [
        iter(Batches(count, batch, seed=seed, start=start, parts=parts, rank=r, world=world))
        for r in range(world)
    ]
    samples = []
    for _ in range(steps * parts):
        for rank in ranks:
            samples += next(rank)
    return samples


def test_each_epoch_shows_every_sample_once_in_an_order_of_its_own():
    samples = sequence(10, 4, 5)
    assert sorted(samples[:10]) == sorted(samples[10:]) == list(range(10))
    assert samples[:10] != samples[10:]


@pytest.mark.parametrize("layout", [{"batch": 6}, {"batch": 12, "world": 2}, {"batch": 12, "parts": 3}])
def test_the_samples_do_not_depend_on_how_a_batch_is_split(layout):
    """A batch may also run over the end of an epoch, or hold several."""
    steps = 72 // layout["batch"]
    assert sequence(7, steps, **layout) == sequence(7, 24, 3)


def test_a_later_start_goes_on_where_the_run_was():
    assert sequence(7, 5, 3, start=4) == sequence(7, 9, 3)[12:]


def test_another_seed_is_another_order():
    assert sequence(50, 1, 50) != sequence(50, 1, 50, seed=1)


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="batch: must be a multiple of processes times accumulate, 2 x 3"):
        Batches(10, 8, seed=0, parts=3, world=2)


def test_streams_are_unrelated():
    keys = {stream(a, b) for a in range(50) for b in range(50)}
    assert len(keys) == 2500
    assert all(0 <= key < 2**63 for key in islice(keys, 100))


def test_the_default_generator_is_seeded_like_by_torch():
    torch.manual_seed(5)
    expected = torch.rand(3)
    seed_default(5, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
