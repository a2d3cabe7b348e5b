"""The digits against the copy that scikit-learn ships."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from fewstep.data import digits


def test_the_digits_are_those_of_scikit_learn():
    images, labels = digits()
    theirs = load_digits()
    assert images.dtype == torch.float32
    assert torch.equal(images, torch.from_numpy(theirs.images).float()[:, None] / 8 - 1)
    assert torch.equal(labels, torch.from_numpy(theirs.target).long())


def test_shape_and_range():
    images, labels = digits()
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (-1, 1)
    assert labels.unique().tolist() == list(range(10))
