"""Networks of three published sizes, with random weights, and a network that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewstep import Field
from fewstep._extras import require
from fewstep.networks import SongUNet, song_unet_preset

__all__ = ["CASES", "Case", "Network", "Nothing"]

#: The settings in which Stable Diffusion 1.5's U-Net differs from diffusers' defaults: 860 M parameters.
STABLE_DIFFUSION = {"sample_size": 64, "cross_attention_dim": 768}
TINY_STABLE_DIFFUSION = {
    "sample_size": 4,
    "cross_attention_dim": 16,
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "mid_block_type": None,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
#: DiT-XL/2 of 256 x 256 pictures: 675 M parameters as published, 750 M in diffusers, where every block has
#: an embedding of time and label of its own.
DIT = {"num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "sample_size": 32}
TINY_DIT = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 4}
TINY_SONG = {"img_resolution": 4, "model_channels": 16, "channel_mult": [2], "num_blocks": 1}


class Network(nn.Module):
    """A network as ``(x, t, **conditions) -> prediction like x``.

    Args:
        inner: the network; extra output channels (the variances of DiT) are dropped.
        time: name of its time argument.
    """

    def __init__(self, inner: nn.Module, time: str) -> None:
        super().__init__()
        self.inner, self.time = inner, time

    def forward(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        output = self.inner(x, **{self.time: t.expand(len(x))}, **conditions)
        prediction = output if isinstance(output, Tensor) else output.sample
        return prediction[:, : x.shape[1]]


class Nothing(nn.Module):
    """A network that returns its input, so that only the loop around it takes time."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Args:
        name: its name in rows.
        make: returns the inner network, full-sized or tiny, on the default device.
        time: name of its time argument.
        clock: its times at noise and at data.
        shape: shape of a sample, full-sized and tiny.
        large: the larger batch size, full-sized; the other is 1.
        conditions: returns the conditions of a batch, from ``(batch, tiny)``.
    """

    name: str
    make: Callable[[bool], nn.Module]
    time: str
    clock: tuple[float, float]
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    large: int
    conditions: Callable[[int, bool], Mapping[str, Tensor]]

    def network(self, tiny: bool, device: torch.device, dtype: torch.dtype) -> Network:
        """Return the network with weights from seed 0."""
        torch.manual_seed(0)
        with device:
            return Network(self.make(tiny), self.time).eval().to(dtype)

    def field(self, network: nn.Module, tiny: bool) -> Field:
        """Return the field of a network of this case, whose output is taken for the velocity."""
        return Field(network, shape=self.shape[tiny], clock=self.clock, name=self.name)

    def inputs(
        self, batch: int, tiny: bool, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return noise and conditions of a batch."""
        torch.manual_seed(0)
        conditions = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in self.conditions(batch, tiny).items()
        }
        return torch.randn(batch, *self.shape[tiny]).to(device, dtype), conditions


def _song(tiny: bool) -> nn.Module:
    return SongUNet(**song_unet_preset("cifar10") | (TINY_SONG if tiny else {}))


def _stable_diffusion(tiny: bool) -> nn.Module:
    settings = TINY_STABLE_DIFFUSION if tiny else STABLE_DIFFUSION
    return require("diffusers", "diffusers").UNet2DConditionModel(**settings)


def _dit(tiny: bool) -> nn.Module:
    settings = TINY_DIT if tiny else DIT
    return require("diffusers", "diffusers").DiTTransformer2DModel(
        in_channels=4, out_channels=8, patch_size=2, num_embeds_ada_norm=1000, **settings
    )


CASES = (
    Case("CIFAR-10 U-Net", _song, "t", (0, 1), ((3, 32, 32), (3, 4, 4)), 64, lambda batch, tiny: {}),
    Case(
        "Stable Diffusion 1.5 U-Net",
        _stable_diffusion,
        "timestep",
        (999, 0),
        ((4, 64, 64), (4, 4, 4)),
        8,
        lambda batch, tiny: {"encoder_hidden_states": torch.randn(batch, 77, 16 if tiny else 768)},
    ),
    Case(
        "DiT-XL/2",
        _dit,
        "timestep",
        (999, 0),
        ((4, 32, 32), (4, 4, 4)),
        16,
        lambda batch, tiny: {"class_labels": torch.randint(1000, (batch,))},
    ),
)
