"""A small time-conditional U-Net for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._shared import SharedNetwork
from ._time import TimeEmbedding

__all__ = ["UNet"]


class ResidualBlock(nn.Module):
    """Two convolutions around a time-dependent affine map, with a skip connection."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.affine = nn.Linear(embedding, 2 * channels_out)
        self.norm2 = nn.GroupNorm(8, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        nn.init.zeros_(self.conv2.weight)  # every block starts as its skip connection

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.affine(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        output: Tensor = self.skip(x) + h
        return output


class SelfAttention(nn.Module):
    """Single-head self-attention over the pixels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        output: Tensor = x + self.proj(h)
        return output


class UNet(SharedNetwork):
    """U-Net ``(x, t) -> velocity`` on images of shape ``(B, channels, H, W)``.

    Blocks of ``patch x patch`` pixels are first folded into channels, which makes the network cheap.
    ``H`` and ``W`` must be divisible by ``patch * 2 ** (len(multipliers) - 1)``.

    Args:
        channels: image channels at the input.
        width: feature channels at the finest level; a multiple of 8.
        multipliers: channel multiplier of each level, finest first.
        blocks: residual blocks per level on the way down; one more on the way up.
        patch: side of the pixel blocks folded into channels.
        turns: highest frequency of the time embedding, in turns over [0, 1].
        out_channels: image channels at the output; ``None`` for as many as at the input.

    Shape:
        ``x``: ``(B, channels, H, W)``; ``t``: ``()`` or ``(B,)``, in [0, 1]; output
        ``(B, out_channels, H, W)``.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2),
        blocks: int = 2,
        patch: int = 2,
        turns: float = 8.0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "patch": patch,
            "turns": turns,
            "out_channels": out_channels,
        }
        self.in_channels = channels
        self.out_channels = channels if out_channels is None else out_channels
        embedding = 4 * width
        self.fold = nn.PixelUnshuffle(patch)
        self.unfold = nn.PixelShuffle(patch)
        self.embed = TimeEmbedding(embedding, turns)
        self.stem = nn.Conv2d(channels * patch**2, width, 3, padding=1)

        c, skips = width, [width]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            if level:
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
            for _ in range(blocks):
                self.down.append(ResidualBlock(c, width * multiplier, embedding))
                c = width * multiplier
                skips.append(c)

        self.middle = nn.ModuleList(
            [ResidualBlock(c, c, embedding), SelfAttention(c), ResidualBlock(c, c, embedding)]
        )

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(c + skips.pop(), width * multiplier, embedding))
                c = width * multiplier
            if level:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(c, c, 3, padding=1)))

        last = nn.Conv2d(c, self.out_channels * patch**2, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.head = nn.Sequential(nn.GroupNorm(8, c), nn.SiLU(), last)

    @property
    def output_layer(self) -> nn.Module:
        """The last layer of the network."""
        return self.head[-1]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.embed(t, x)
        h = self.stem(self.fold(x))
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding)
            else:
                h = layer(h)
        velocity: Tensor = self.unfold(self.head(h))
        return velocity
