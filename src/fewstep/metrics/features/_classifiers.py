"""Small classifiers whose last hidden layer gives the features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MnistClassifier", "MobileNetTrunk", "ResNet56", "same_padding"]

#: ImageNet's mean and standard deviation, used in training of the ResNet's public weights.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: MobileNet's channels after each pointwise layer, and its depthwise layers that halve the resolution.
_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024)
_HALVING = (2, 4, 6, 12)

#: Side in pixels to which images are resized for MobileNet.
_SIDE = 128


class MnistClassifier(nn.Module):
    """Five convolutions of 3 x 3, the mean over space, and one linear layer: 98,000 parameters.

    ``recipes/mnist_classifier.py`` trains it.
    """

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _convolution(1, 16), _convolution(16, 32, 2), _convolution(32, 64), _convolution(64, 64, 2),
            _convolution(64, 64),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the last layer's input, ``(B, 64)``, for levels 0 to 255 of shape ``(B, 1, 28, 28)``."""
        x: Tensor = self.trunk(pictures.float() / 255)
        return x.mean(dim=(2, 3))

    def logits(self, pictures: Tensor) -> Tensor:
        """Return the logits of the ten digits, ``(B, 10)``."""
        logits: Tensor = self.head(self(pictures))
        return logits


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(channels, out, stride), nn.BatchNorm2d(out), nn.ReLU())


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


class MobileNetTrunk(nn.Module):
    """MobileNet-v1 1.0/224 up to its twelfth pointwise layer: 1024 features after the mean over space.

    Howard et al., *MobileNets* (2017), table 1, with batch norm folded into the convolutions. Images are
    resized to 128 x 128 (bilinear, antialiased when shrinking); grey ones are repeated to three channels.
    """

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2)
        self.depthwise, self.pointwise = nn.ModuleList(), nn.ModuleList()
        for number, (channels, out) in enumerate(zip(_CHANNELS, _CHANNELS[1:], strict=False), start=1):
            self.depthwise.append(nn.Conv2d(channels, channels, 3, _stride(number), groups=channels))
            self.pointwise.append(nn.Conv2d(channels, out, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features, ``(B, 1024)``, for levels 0 to 255 of shape ``(B, 1 or 3, H, W)``."""
        x = pictures.float().expand(-1, 3, -1, -1)
        x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True) / 127.5 - 1
        x = F.relu6(self.conv1(same_padding(x, 2)))
        for number, (depthwise, pointwise) in enumerate(zip(self.depthwise, self.pointwise, strict=True), 1):
            x = F.relu6(depthwise(same_padding(x, _stride(number))))
            x = F.relu6(pointwise(x))
        return x.mean(dim=(2, 3))

    @staticmethod
    def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of the public file to those of this module; ``dw13`` is not needed."""
        names = {"conv1": "conv1"}
        for number in range(1, len(_CHANNELS)):
            names[f"dw{number}"] = f"depthwise.{number - 1}"
            names[f"pw{number}"] = f"pointwise.{number - 1}"
        return {
            f"{names[layer]}.{'weight' if kind == 'w' else 'bias'}": value.float()
            for (layer, kind), value in ((tuple(key.split(".")), value) for key, value in weights.items())
            if layer in names
        }


def _stride(number: int) -> int:
    return 2 if number in _HALVING else 1


def same_padding(x: Tensor, stride: int) -> Tensor:
    """Pad for a kernel of 3 like TensorFlow's "same": ``ceil(n / stride)`` outputs, any odd pixel at the end.

    At stride 2 an even side is padded by one pixel at the end only; symmetric padding would shift the
    convolution by a pixel.
    """
    missing = [max((-(-n // stride) - 1) * stride + 3 - n, 0) for n in x.shape[-2:]]
    (above, left) = (each // 2 for each in missing)
    return F.pad(x, (left, missing[1] - left, above, missing[0] - above))
