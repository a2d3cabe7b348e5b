"""The trunk of ImageNet's MobileNet-v1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MobileNetTrunk", "same_padding"]

#: Channels after each pointwise layer, and the depthwise layers that halve the resolution.
_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024)
_HALVING = (2, 4, 6, 12)

#: Side in pixels to which images are resized.
_SIDE = 128


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


def same_padding(x: Tensor, stride: int, kernel: int = 3) -> Tensor:
    """Pad with zeros like TensorFlow's "same": ``ceil(n / stride)`` outputs, any odd pixel at the end.

    At stride 2 an even side is padded by one pixel at the end only; symmetric padding would shift the
    convolution by a pixel.
    """
    missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    (above, left) = (each // 2 for each in missing)
    return F.pad(x, (left, missing[1] - left, above, missing[0] - above))
