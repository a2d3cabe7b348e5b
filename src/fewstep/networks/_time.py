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

    def __init__(self, width: int, turns: float, count: int = 32) -> None:
        super().__init__()
        self.turns, self.count = turns, count
        self.linear1 = nn.Linear(2 * count, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the embedding, ``(B, width)``, of a time of shape ``()`` or ``(B,)``."""
        # In half precision, phases would be wrong by tenths; a buffer would be of the type of the network.
        turns = torch.logspace(math.log10(0.5), math.log10(self.turns), self.count, device=x.device)
        fine = torch.promote_types(x.dtype, torch.float32)
        phase = t.to(fine).expand(x.shape[0])[:, None] * (2 * math.pi * turns).to(fine)
        h = torch.cat([phase.sin(), phase.cos()], dim=1).to(x.dtype)
        return F.silu(self.linear2(F.silu(self.linear1(h))))
