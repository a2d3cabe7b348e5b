"""Samples in memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

import fewstep as fs


def test_batches_come_in_the_order_asked_for():
    x = torch.arange(12.0).reshape(6, 2)
    data = fs.data.ArrayDataset(x, name="points")
    assert (len(data), data.shape, data.name) == (6, (2,), "points")
    for indices in ([4, 0, 4], torch.tensor([4, 0, 4])):
        assert torch.equal(data[indices], x[[4, 0, 4]])
    assert data[[]].shape == (0, 2)
    with pytest.raises(IndexError):
        data[[6]]


def test_floats_become_float32_and_pictures_stay_bytes():
    assert fs.data.ArrayDataset(torch.zeros(2, 3, dtype=torch.float64))[[0]].dtype == torch.float32
    assert fs.data.ArrayDataset(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))[[0]].dtype == torch.uint8


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5), r"not torch.float32 of shape \(5,\)"),
        (torch.zeros(5, 2, dtype=torch.int64), "not torch.int64"),
        (torch.zeros(5, 4, 4, dtype=torch.uint8), r"uint8 pictures \(N, C, H, W\)"),
        (torch.zeros(0, 2), "holds no samples"),
        (torch.tensor([[0.0, float("nan")]]), "must be finite"),
        (torch.tensor([[1e300]], dtype=torch.float64), "must be finite"),
    ],
)
def test_what_is_no_data_is_refused(x, message):
    with pytest.raises(ValueError, match=f"^points: .*{message}"):
        fs.data.ArrayDataset(x, name="points")


def test_the_fingerprint_knows_samples_shape_and_count_but_not_the_name():
    x = torch.randn(1000, 2)
    fingerprint = fs.data.ArrayDataset(x, name="a").fingerprint()
    assert fingerprint == fs.data.ArrayDataset(x.clone(), name="b").fingerprint()
    others = [x + 1, x[:999], x.reshape(500, 4), x.reshape(1000, 2, 1)]
    assert len({fingerprint, *(fs.data.ArrayDataset(other).fingerprint() for other in others)}) == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_takes_whole_batches(workers):
    x = torch.arange(20.0).reshape(10, 2)
    batches = [[3, 1], [9], [0, 0, 2]]
    loader = DataLoader(fs.data.ArrayDataset(x), sampler=batches, batch_size=None, num_workers=workers)
    for batch, indices in zip(loader, batches, strict=True):
        assert torch.equal(batch, x[indices])
