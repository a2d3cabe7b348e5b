"""Handwritten digits of 8 x 8 pixels, included in the package."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

__all__ = ["digits"]


def digits() -> tuple[Tensor, Tensor]:
    """Return images and labels of *Optical Recognition of Handwritten Digits* (Alpaydin and Kaynak 1998).

    The 1,797 images of the UCI test set (CC BY 4.0), as in scikit-learn.

    Returns:
        Images in [-1, 1], float32 of shape ``(1797, 1, 8, 8)``, and labels, int64 of shape ``(1797,)``.
    """
    with (files("fewstep.data") / "digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        images, labels = archive["images"], archive["labels"]
    return torch.from_numpy(images).float()[:, None] / 8 - 1, torch.from_numpy(labels).long()
