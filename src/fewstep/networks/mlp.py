"""A time-conditional multilayer perceptron for points and small pictures."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ._time import TimeEmbedding

__all__ = ["MLP"]


class MLP(nn.Module):
    """Residual perceptron ``(x, t) -> velocity`` on samples of any fixed shape.

    Args:
        shape: shape of one sample, without the batch dimension.
        width: hidden features.
        blocks: residual hidden layers.
        turns: highest frequency of the time embedding, in turns over [0, 1].

    Shape:
        ``x``: ``(B, *shape)``; ``t``: ``()`` or ``(B,)``, in [0, 1]; output like ``x``.
    """

    def __init__(
        self, shape: tuple[int, ...] = (2,), width: int = 256, blocks: int = 3, turns: float = 2.0
    ) -> None:
        super().__init__()
        self.config = {"shape": list(shape), "width": width, "blocks": blocks, "turns": turns}
        features = math.prod(shape)
        self.embed = TimeEmbedding(width, turns)
        self.stem = nn.Linear(features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.times = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, features)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.embed(t, x)
        h = self.stem(x.flatten(1))
        for hidden, time in zip(self.hidden, self.times, strict=True):
            h = h + F.silu(hidden(F.layer_norm(h, h.shape[1:])) + time(embedding))
        velocity: Tensor = self.head(F.silu(h))
        return velocity.reshape(x.shape)
