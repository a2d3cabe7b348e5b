"""Rough fields: two networks in the style of tutorials, and exact networks made rough on purpose.

``load("flow")`` and ``load("ddpm")`` are small U-Nets on MNIST with BatchNorm, trained by
``recipes/rough_mnist.py``. The first has random Fourier features of time of scale 30, so that its velocity
ripples by 1 to 2 % within 0.03 of the time. The second was trained at 300 integer timesteps, between which
nothing holds it, and starts with signal (alpha(0)^2 = 0.048).

The others in ``ROUGH`` are of the exact mixture in 16 dimensions of ``learned_solvers.py``: with a time
rounded to 300 levels, with noise of 1 % of the output that is a function of state and time, in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import fewstep as fs
from fewstep.schedules import DDPM, CondOT

__all__ = ["NETWORKS", "ROUGH", "SCHEDULES", "WEIGHTS", "InBfloat16", "Noisy", "Rounded", "field", "load"]

WEIGHTS = Path(__file__).parent / "weights"

SCHEDULES = {"flow": CondOT(), "ddpm": DDPM(steps=300)}

#: Mean and standard deviation of the pixels of the training pictures of MNIST, in [-1, 1].
MOMENTS = (-0.73868, 0.61622)


class FourierTime(nn.Module):
    """Sines and cosines of ``2 pi W t`` with fixed ``W ~ N(0, 30^2)``, for ``t`` in [0, 1]."""

    frequencies: Tensor

    def __init__(self, width: int, scale: float = 30.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(width // 2))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class SinusoidalTime(nn.Module):
    """Sines and cosines of ``k / 10000^(2 i / width)``, interleaved, for timesteps ``k``."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 10_000 ** (-torch.arange(0, width, 2) / width))

    def forward(self, k: Tensor) -> Tensor:
        phase = k[:, None] * self.frequencies
        return torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)


class Block(nn.Module):
    """Two convolutions with BatchNorm, and an embedding of time added between them."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.time = nn.Linear(embedding, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.silu(self.norm1(self.conv1(x))) + self.time(embedding)[:, :, None, None]
        return F.silu(self.norm2(self.conv2(h)))


class RoughUNet(nn.Module):
    """A U-Net on pictures of 28 x 28 pixels, with features of 14 x 14 and 7 x 7.

    Args:
        features: ``features(time) -> (B, embedding)``.
        width: channels at 14 x 14; twice as many at 7 x 7.
        embedding: width of the embedding of time.

    Shape:
        ``x``: ``(B, 1, 28, 28)``; ``time``: ``(B,)``; output like ``x``.
    """

    def __init__(self, features: nn.Module, width: int = 48, embedding: int = 128) -> None:
        super().__init__()
        self.features = features
        self.linear = nn.Linear(embedding, embedding)
        self.stem = nn.Conv2d(1, width, 4, stride=2, padding=1)
        self.outer = Block(width, width, embedding)
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.inner = Block(2 * width, 2 * width, embedding)
        self.middle = Block(2 * width, 2 * width, embedding)
        self.up = nn.ConvTranspose2d(4 * width, width, 4, stride=2, padding=1)
        self.last = Block(2 * width, width, embedding)
        self.head = nn.ConvTranspose2d(2 * width, 1, 4, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        embedding = F.silu(self.linear(self.features(time.to(x.dtype).expand(len(x)))))
        stem = self.stem(x)
        outer = self.outer(stem, embedding)
        inner = self.inner(self.down(outer), embedding)
        h = self.up(torch.cat([self.middle(inner, embedding), inner], dim=1))
        h = self.last(torch.cat([h, outer], dim=1), embedding)
        output: Tensor = self.head(torch.cat([h, stem], dim=1))
        return output


#: By name: an untrained network.
NETWORKS: dict[str, Callable[[], RoughUNet]] = {
    "flow": lambda: RoughUNet(FourierTime(128)),
    "ddpm": lambda: RoughUNet(SinusoidalTime(128)),
}


def load(name: str, folder: Path = WEIGHTS) -> fs.Field:
    """Return the field of a trained rough network, ``"flow"`` or ``"ddpm"``."""
    network = NETWORKS[name]()
    network.load_state_dict(load_file(folder / f"rough-{name}.safetensors"))
    return field(name, network.eval().requires_grad_(False))


def field(name: str, network: nn.Module) -> fs.Field:
    """Return the field of a network that is trained as the one called ``name`` is."""
    known: dict[str, Any] = {"shape": (1, 28, 28), "data_moments": MOMENTS, "name": f"rough-{name}"}
    return fs.Field(network, SCHEDULES[name], "noise" if name == "ddpm" else "velocity", **known)


class Rounded(nn.Module):
    """A network whose time is rounded to one of ``levels``, evenly spaced over [0, 1]."""

    def __init__(self, network: nn.Module, levels: int = 300) -> None:
        super().__init__()
        self.network, self.intervals = network, levels - 1
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = self.network(x, (t * self.intervals).round() / self.intervals)
        return output


class Noisy(nn.Module):
    """A network with noise that is a function of state and time: sines of random projections of both.

    The noise has ``size`` times the root mean square of each sample's output. States or times that differ by
    more than about ``1 / scale`` in any direction have unrelated noises.
    """

    projection: Tensor

    def __init__(self, network: nn.Module, dimension: int, size: float = 0.01, scale: float = 30.0) -> None:
        super().__init__()
        self.network, self.size = network, size
        generator = torch.Generator().manual_seed(0)
        projection = scale * torch.randn(dimension + 1, dimension, dtype=torch.float64, generator=generator)
        self.register_buffer("projection", projection)
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = self.network(x, t)
        both = torch.cat([x.double(), t.double().expand(len(x))[:, None]], dim=1)
        size = self.size * output.square().mean(1, keepdim=True).sqrt()
        return output + size * (math.sqrt(2) * (both @ self.projection).sin()).to(output.dtype)


class InBfloat16(nn.Module):
    """A network that gets its states, has its weights and returns its outputs in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for buffer in network.buffers():
            buffer.copy_(buffer.bfloat16())
        # A field passes the states in the type of the first parameter.
        self.first = nn.Parameter(torch.zeros((), dtype=torch.bfloat16), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = self.network(x, t)
        return output


def _rough_mixture(name: str, rough: Callable[[nn.Module], nn.Module]) -> Callable[[], fs.Field]:
    """Return a function that makes the field of the mixture in 16 dimensions, made rough."""
    return lambda: fs.Field(rough(fs.models.random_mixture(16, 8, std=0.2)), shape=(16,), name=name)


#: By name in ``learned_solvers.py``: a function that makes the field.
ROUGH: dict[str, Callable[[], fs.Field]] = {
    "rough-flow": lambda: load("flow"),
    "rough-ddpm": lambda: load("ddpm"),
    "mixture-rounded": _rough_mixture("mixture-rounded", Rounded),
    "mixture-noisy": _rough_mixture("mixture-noisy", lambda network: Noisy(network, 16)),
    "mixture-bf16": _rough_mixture("mixture-bf16", InBfloat16),
}
