"""Time embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TimeEmbedding"]


class TimeEmbedding(nn.Module):
    """Sinusoids of ``t`` in [0, 1], from half a turn to ``turns`` turns, followed by a two-layer MLP.

    The frequencies suit a continuous time in [0, 1], so that derivatives with respect to ``t`` are
    smooth; the 1000-step sinusoids of discrete diffusion models are far too fast.
    """

    frequencies: Tensor

    def __init__(self, width: int, turns: float, count: int = 32) -> None:
        super().__init__()
        frequencies = 2 * math.pi * torch.logspace(math.log10(0.5), math.log10(turns), count)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.linear1 = nn.Linear(2 * count, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the embedding, ``(B, width)``, of a time of shape ``()`` or ``(B,)``."""
        phase = t.to(x.dtype).expand(x.shape[0])[:, None] * self.frequencies.to(x.dtype)
        h = torch.cat([phase.sin(), phase.cos()], dim=1)
        return F.silu(self.linear2(F.silu(self.linear1(h))))
