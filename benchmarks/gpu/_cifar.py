"""CIFAR-10 from sprites, its features, and the fields of networks that are trained on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewstep import Field
from fewstep.comparison import FeatureQuality
from fewstep.data import ArrayDataset
from fewstep.data._arrays import read_sprites
from fewstep.metrics import features

from ._record import Options

__all__ = ["MOMENTS", "HalfPrecision", "Pictures", "Pooled", "field", "pictures", "quality"]

#: File of the moments of the pictures' features, beside the weights.
MOMENTS = "moments.npz"

#: Pictures in a sprite.
_IN_A_FILE = 1000


class Pictures(NamedTuple):
    """Training pictures, and the indices of those that are exact copies, for statistics."""

    data: ArrayDataset
    exact: list[int]


@cache
def pictures(folder: Path | None) -> Pictures:
    """Read all sprites ``cifar10/train_*.webp`` in a folder; files may be missing.

    Without a folder the pictures are 256 random ones of 8 x 8.

    Raises:
        FileNotFoundError: when the folder lacks sprites, or ``cifar10/labels.npz``, which lists exact copies.
    """
    if folder is None:
        return _random()
    sprites = sorted((folder / "cifar10").glob("train_*.webp"))
    if not sprites:
        raise FileNotFoundError(
            f"data: {folder} holds no cifar10/train_*.webp; put some of these sprites there."
        )
    data = ArrayDataset(torch.from_numpy(read_sprites(sprites)), name=f"CIFAR-10, {len(sprites)} of 50 files")
    with np.load(folder / "cifar10" / "labels.npz", allow_pickle=False) as labels:
        mask = labels["exact_train"].reshape(-1, _IN_A_FILE)[[int(path.stem[6:]) for path in sprites]]
    return Pictures(data, mask.flatten().nonzero()[0].tolist())


def _random() -> Pictures:
    coarse = torch.rand(256, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    x = F.interpolate(coarse, size=8, mode="bilinear", align_corners=True)
    return Pictures(ArrayDataset((255 * x).to(torch.uint8), name="random pictures"), list(range(len(x))))


def quality(options: Options) -> FeatureQuality:
    """Return the Fréchet distance to the exact training pictures in the features of ResNet-56.

    The features are those of ``features/resnet56-cifar10.safetensors`` in the folder of data; without data,
    means of pixels. Moments beside the weights are used, so that the pictures need not be at hand. If
    ``tiny``, they are of 200 pictures.
    """
    data, weights = options.data, options.weights
    if data is None and not options.tiny:
        raise ValueError("data: this stage needs CIFAR-10; give --data, a folder of cifar10/ and features/.")
    if data is None:
        network = features.FeatureNetwork.of(Pooled(), "pooled")
    else:
        network = features.load(data / "features" / "resnet56-cifar10.safetensors", options.device)
    known = None if weights is None else weights / MOMENTS
    if known is not None and known.exists():
        reference = features.load_reference(known)
        reference.check(network)
        return FeatureQuality(network, reference.moments)
    found = pictures(data)
    exact = found.exact[:200] if options.tiny else found.exact
    moments = features.feature_moments(found.data, network, indices=exact, batch=1000)
    moments.protocol["pictures"] = {"name": found.data.name, "exact": len(exact)}
    return FeatureQuality(network, moments)


class Pooled(nn.Module):
    """Means of the pixels of each quarter of a picture: features of tiny pictures."""

    num_features = 12

    def forward(self, pictures: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1)


class HalfPrecision(nn.Module):
    """A network that computes in bfloat16 where autocast does; state, time and weights stay in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            velocity: Tensor = self.network(x, t)
        return velocity.to(x.dtype)


def field(network: nn.Module, name: str, shape: tuple[int, ...], half: bool) -> Field:
    """Return the field of a flow, in bfloat16 or float32, for sampling."""
    network = network.requires_grad_(False).to(memory_format=torch.channels_last)
    return Field((HalfPrecision(network) if half else network).eval(), shape=shape, name=name)
