"""ResNet-56 of CIFAR-10."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResNet56"]

#: ImageNet's mean and standard deviation, used in training of the public weights.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResNet56(nn.Module):
    """Three stages of nine blocks with 16, 32 and 64 channels: 64 features after the mean over space.

    He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition* (2015), section 4.2; shortcuts
    of option A. Its state dict has the keys of akamaster/pytorch_resnet_cifar10.
    """

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 16), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = _stage(16, 16), _stage(16, 32), _stage(32, 64)
        self.linear = nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the last layer's input, ``(B, 64)``, for levels 0 to 255 of shape ``(B, 3, 32, 32)``."""
        x = pictures.float() / 255
        mean, std = (x.new_tensor(each)[:, None, None] for each in (_MEAN, _STD))
        x = (x - mean) / std
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        features: Tensor = x.mean(dim=(2, 3))
        return features

    def logits(self, pictures: Tensor) -> Tensor:
        """Return the logits of the ten classes, ``(B, 10)``."""
        logits: Tensor = self.linear(self(pictures))
        return logits

    @staticmethod
    def complete(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the counters of batch norm, which public files omit, to the weights."""
        means = (key for key in weights if key.endswith("running_mean"))
        counters = {key.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for key in means}
        return counters | weights


class _Block(nn.Module):
    """Two convolutions and a parameter-free shortcut: every other pixel, with zeros in new channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self._stride, self._new = (1, 0) if channels == out else (2, out - channels)
        self.conv1, self.bn1 = _conv(channels, out, self._stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = _conv(out, out), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :, :: self._stride, :: self._stride]
        return (y + F.pad(shortcut, (0, 0, 0, 0, self._new // 2, self._new // 2))).relu()


def _stage(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(_Block(channels, out), *(_Block(out, out) for _ in range(8)))


def _conv(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
