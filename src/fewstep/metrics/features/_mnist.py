"""A small MNIST classifier, with its last hidden layer as features."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MnistClassifier"]


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
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )
