"""Small networks that correct the states of a solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._broadcast import like
from ._shared import SharedNetwork

__all__ = ["Corrector"]

#: Largest samples, in numbers, for which a full matrix is learned.
DENSE = 256
#: Largest correction of a sample, in root mean squares of the solver's errors, so that an extrapolation to
#: samples far from those of the training does bounded harm.
LIMIT = 8.0
#: Places along each axis of a learned map of positions, which is interpolated to the size of the samples.
_PLACES = 8
_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Corrector(SharedNetwork):
    """Corrections ``x_i + c_i(x_0, u_0, ..., u_{i-1}, x_i)`` of the states of a solver; zero at first.

    What a table reaches is combinations of the predictions that it has seen. These networks read them and add
    what lies outside their span. Each ``c_i`` is a linear map, for samples of at most 256 numbers, and a
    network: residual separable convolutions along the axes after the first, or a perceptron for samples of
    one axis. Convolutions take samples of any size along these axes.

    Args:
        shape: shape of one sample, of at most four axes, channels first.
        calls: number of network calls of the solver, ``N``.
        states: indices of the corrected states, from 1 to ``N``.
        width: channels within.
        blocks: residual blocks of the last state; those before have half as many, and at least none.
        kernel: size of the convolutions, odd.
        patch: entries along each axis that are taken together, so that large samples cost less.

    Shape:
        ``corrector(i, x0, predictions, x)``: the state ``x_i``, ``(B, *shape)``, corrected; ``predictions``
        are ``i`` tensors like it.

    Raises:
        ValueError: on a shape that it has no convolutions for.
    """

    def __init__(
        self,
        shape: Sequence[int],
        calls: int,
        states: Sequence[int],
        width: int = 32,
        blocks: int = 2,
        kernel: int = 5,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "shape": list(shape),
            "calls": calls,
            "states": list(states),
            "width": width,
            "blocks": blocks,
            "kernel": kernel,
            "patch": patch,
        }
        if not 1 <= len(shape) <= 1 + max(_CONVOLUTIONS):
            raise ValueError(
                f"Corrector: shape must have one to four axes, channels first, not {tuple(shape)}; give the "
                "samples such a shape."
            )
        if kernel % 2 == 0 or not states or not set(states) <= set(range(1, calls + 1)):
            raise ValueError(
                f"Corrector: kernel must be odd, and states be some of 1 to {calls}, not kernel={kernel} and "
                f"states={list(states)}."
            )
        self.parts = nn.ModuleDict(
            {
                str(i): _Correction(shape, i + 2, width, blocks if i == calls else blocks // 2, kernel, patch)
                for i in states
            }
        )

    def corrects(self, i: int) -> bool:
        """True if state ``i`` is corrected."""
        return str(i) in self.parts

    def forward(self, i: int, x0: Tensor, predictions: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return the corrected state ``x_i``."""
        part = self.parts[str(i)]
        assert isinstance(part, _Correction)
        shape, given = tuple(self.config["shape"]), tuple(x.shape[1:])
        free = isinstance(part.network, _Convolutions) and part.linear is None
        if given != shape and not (free and len(given) == len(shape) and given[0] == shape[0]):
            known = f"{shape[0]} channels and {len(shape) - 1} more axes" if free else f"shape {shape}"
            raise ValueError(
                f"Corrector: samples must have {known}, as in the training of the corrections, not shape "
                f"{given}; lift the solver again for them, or take lifted.uncorrected."
            )
        inputs = torch.stack([x0, *predictions, x], 1).to(part.mix.dtype)
        correction: Tensor = part(inputs)
        return x + correction.to(x.dtype)

    @torch.no_grad()
    def normalise(self, i: int, x0: Tensor, predictions: Sequence[Tensor], x: Tensor, scale: Tensor) -> None:
        """Set the scales of the inputs, from some samples, and of the correction of state ``i``."""
        part = self.parts[str(i)]
        assert isinstance(part, _Correction)
        inputs = torch.stack([x0, *predictions, x]).flatten(1).double()
        moments = inputs @ inputs.T / inputs.shape[1]
        # The inputs are nearly combinations of each other: what is left of each beside those before counts.
        # States are exactly that, until those before are corrected; the floor keeps rounding out.
        floor = 1e-4 * moments.diagonal().mean() * torch.eye(len(moments), device=moments.device)
        part.mix.copy_(torch.linalg.inv(torch.linalg.cholesky(moments + floor)))
        part.scale.copy_(scale)


class _Correction(nn.Module):
    """The correction of one state from ``terms`` inputs, ``(B, terms, *shape)``."""

    mix: Tensor
    scale: Tensor

    def __init__(
        self, shape: Sequence[int], terms: int, width: int, blocks: int, kernel: int, patch: int
    ) -> None:
        super().__init__()
        self.register_buffer("mix", torch.eye(terms))  # makes the inputs uncorrelated, with mean square 1
        self.register_buffer("scale", torch.ones(()))
        size = math.prod(shape)
        self.linear = nn.Linear(terms * size, size) if size <= DENSE else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        self.network: nn.Module | None = None
        if blocks or self.linear is None:
            if len(shape) == 1:
                self.network = _Perceptron(terms * size, size, 4 * width, blocks)
            else:
                self.network = _Convolutions(len(shape) - 1, terms, shape[0], width, blocks, kernel, patch)

    def forward(self, inputs: Tensor) -> Tensor:
        total = torch.zeros_like(inputs[:, 0])
        if self.linear is not None:
            total = total + self.linear(_mixed(inputs, self.mix)).view_as(total)
        if self.network is not None:
            total = total + self.network(inputs, self.mix)
        square = like(total.flatten(1).square().mean(1), total)
        return self.scale * total * (LIMIT**2 / square.clamp(min=LIMIT**2)).sqrt()


class _Convolutions(nn.Module):
    """Residual separable convolutions along one to three axes, with a learned map of positions."""

    def __init__(
        self, axes: int, terms: int, channels: int, width: int, blocks: int, kernel: int, patch: int
    ) -> None:
        super().__init__()
        conv: Any = _CONVOLUTIONS[axes]
        self.patch = patch
        self.mode = _INTERPOLATION[axes]
        self.places = nn.Parameter(torch.zeros(1, width, *[_PLACES] * axes))
        self.stem = nn.Linear(terms * channels * patch**axes, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                conv(width, width, kernel, padding=kernel // 2, groups=width),
                conv(width, 2 * width, 1),
                nn.SiLU(),
                conv(2 * width, width, 1),
            )
            for _ in range(max(1, blocks))
        )
        self.head = nn.Linear(width, channels * patch**axes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor, mix: Tensor) -> Tensor:
        # The mixture of the inputs is one of the weights, which are fewer.
        mixed = torch.einsum("ij,wik->wjk", mix, self.stem.weight.unflatten(1, (len(mix), -1))).flatten(1)
        patches = _patches(inputs.flatten(1, 2), self.patch)
        h = _pointwise(patches, mixed, self.stem.bias)
        h = h + F.interpolate(self.places, h.shape[2:], mode=self.mode, align_corners=False)
        for block in self.blocks:
            h = h + block(h)
        made: Tensor = _pixels(_pointwise(h, self.head.weight, self.head.bias), self.patch)
        for axis, count in enumerate(inputs.shape[3:], start=2):
            made = made.narrow(axis, 0, count)
        return made


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear map of the channels at each place."""
    made = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2))
    return made.reshape(len(x), len(weight), *x.shape[2:])


def _patches(x: Tensor, patch: int) -> Tensor:
    """``(B, C, *size) -> (B, C * patch^axes, *places)``; zeros fill the last patches."""
    axes = x.ndim - 2
    beyond = [(0, -count % patch) for count in reversed(x.shape[2:])]
    if any(count for _, count in beyond):
        x = F.pad(x, [number for pair in beyond for number in pair])
    x = x.reshape(*x.shape[:2], *[number for count in x.shape[2:] for number in (count // patch, patch)])
    return x.permute(0, 1, *range(3, x.ndim, 2), *range(2, x.ndim, 2)).flatten(1, 1 + axes)


def _pixels(x: Tensor, patch: int) -> Tensor:
    """The inverse of ``_patches``, without taking away the zeros."""
    axes = x.ndim - 2
    places = x.shape[2:]
    x = x.unflatten(1, (-1, *[patch] * axes))
    x = x.permute(0, 1, *[axis for k in range(axes) for axis in (2 + axes + k, 2 + k)])
    return x.reshape(*x.shape[:2], *[count * patch for count in places])


class _Perceptron(nn.Module):
    """A residual perceptron for samples of one axis."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor, mix: Tensor) -> Tensor:
        h = self.stem(_mixed(inputs, mix))
        for layer in self.hidden:
            h = h + layer(F.silu(h))
        made: Tensor = self.head(F.silu(h))
        return made


def _mixed(inputs: Tensor, mix: Tensor) -> Tensor:
    return torch.einsum("ij,bj...->bi...", mix, inputs).flatten(1)
