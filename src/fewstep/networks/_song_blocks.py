"""The layers of the DDPM++ U-Net, named as in published weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NEAR_ZERO", "AttentionBlock", "Block", "Resampling", "group_norm", "sinusoids", "xavier"]

Resampling = Literal["up", "down"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

#: Gain of the last layer of each branch, so that the branch starts near zero.
NEAR_ZERO = 1e-5
_MAX_POSITION = 10_000


def sinusoids(t: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of ``t`` at frequencies from 1 down to 1/10000: ``(B,)`` to ``(B, channels)``."""
    half = channels // 2
    powers = torch.arange(half, dtype=t.dtype, device=t.device) / (half - 1)
    phase = t[:, None] * _MAX_POSITION**-powers
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialise ``layer`` with uniform Xavier weights times ``gain`` and a zero bias; return it."""
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group normalisation with up to 32 equal groups of at least four channels."""
    groups = min(32, channels // 4)
    if not groups or channels % groups:
        raise ValueError(
            f"SongUNet: a layer of {channels} channels does not divide into {groups} equal groups; choose "
            "model_channels so that it does: a multiple of 32 always will."
        )
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResamplingConv2d(nn.Conv2d):
    """A convolution after a filter that halves or doubles the resolution."""

    resample_filter: Tensor

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, resampling: Resampling, taps: Sequence[float]
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2)
        self.resampling = resampling
        line = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("resample_filter", (torch.outer(line, line) / line.sum() ** 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.resample_filter.expand(channels, -1, -1, -1)
        padding = (kernel.shape[-1] - 1) // 2
        if self.resampling == "down":
            x = F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)
        else:  # three zeros are inserted for each pixel, so the filter is multiplied by four to keep the mean
            x = F.conv_transpose2d(x, 4 * kernel, stride=2, padding=padding, groups=channels)
        return super().forward(x)


class Block(nn.Module):
    """Two convolutions with the time embedding added between them, and a variance-preserving skip.

    Dropout is before the second convolution; ``taps`` are the resampling filter along one axis.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        embedding: int,
        dropout: float,
        resampling: Resampling | None = None,
        taps: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()

        def conv(kernel: int) -> nn.Conv2d:
            if resampling is None:
                return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
            return ResamplingConv2d(channels_in, channels_out, kernel, resampling, taps)

        same = channels_in == channels_out and resampling is None
        self.norm0 = group_norm(channels_in)
        self.conv0 = xavier(conv(3))
        self.affine = xavier(nn.Linear(embedding, channels_out))
        self.norm1 = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = xavier(nn.Conv2d(channels_out, channels_out, 3, padding=1), NEAR_ZERO)
        self.skip = nn.Identity() if same else xavier(conv(1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = h + self.affine(embedding)[:, :, None, None]
        h = self.conv1(self.dropout(F.silu(self.norm1(h))))
        output: Tensor = (self.skip(x) + h) * math.sqrt(0.5)
        return output


class AttentionBlock(Block):
    """A block followed by self-attention over its pixels, with one head."""

    def __init__(self, channels_in: int, channels_out: int, *, embedding: int, dropout: float) -> None:
        super().__init__(channels_in, channels_out, embedding=embedding, dropout=dropout)
        self.norm2 = group_norm(channels_out)
        self.qkv = xavier(nn.Conv2d(channels_out, 3 * channels_out, 1), math.sqrt(0.2))
        self.proj = xavier(nn.Conv2d(channels_out, channels_out, 1), NEAR_ZERO)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = super().forward(x, embedding)
        # The channels are interleaved: query, key and value of channel 0, then of channel 1, ...
        q, k, v = self.qkv(self.norm2(x)).flatten(2).transpose(1, 2).unflatten(2, (-1, 3)).unbind(3)
        h = _attention(q, k, v).transpose(1, 2).reshape(x.shape)
        output: Tensor = (x + self.proj(h)) * math.sqrt(0.5)
        return output


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over ``(B, pixels, channels)``, in float32 at least: half overflows in the softmax."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        h = F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype))
    return h.to(q.dtype)
