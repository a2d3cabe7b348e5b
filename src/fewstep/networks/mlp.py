"""A time-conditional multilayer perceptron for points and small images."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ._shared import SharedNetwork
from ._time import TimeEmbedding

__all__ = ["MLP"]


class MLP(SharedNetwork):
    """Residual perceptron ``(x, t) -> velocity`` on samples of any fixed shape.

    Args:
        shape: shape of one sample, without the batch dimension.
        width: hidden features.
        blocks: residual hidden layers.
        turns: highest frequency of the time embedding, in turns over [0, 1].
        out_channels: length of the output's first dimension after the batch; ``None`` means ``shape[0]``.

    Shape:
        ``x``: ``(B, *shape)``; ``t``: ``()`` or ``(B,)``, in [0, 1]; output
        ``(B, out_channels, *shape[1:])``.
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (2,),
        width: int = 256,
        blocks: int = 3,
        turns: float = 2.0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "shape": list(shape),
            "width": width,
            "blocks": blocks,
            "turns": turns,
            "out_channels": out_channels,
        }
        self.in_channels = shape[0]
        self.out_channels = shape[0] if out_channels is None else out_channels
        features = math.prod(shape)
        self.embed = TimeEmbedding(width, turns)
        self.stem = nn.Linear(features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.times = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, self.out_channels * math.prod(shape[1:]))
        nn.init.zeros_(self.head.weight)

    @property
    def output_layer(self) -> nn.Module:
        """The last layer of the network."""
        return self.head

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.embed(t, x)
        h = self.stem(x.flatten(1))
        for hidden, time in zip(self.hidden, self.times, strict=True):
            h = h + F.silu(hidden(F.layer_norm(h, h.shape[1:])) + time(embedding))
        velocity: Tensor = self.head(F.silu(h))
        return velocity.reshape(x.shape[0], self.out_channels, *x.shape[2:])
