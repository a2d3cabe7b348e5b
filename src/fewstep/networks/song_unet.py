"""The DDPM++ U-Net, the network of most published image flows of moderate size, and its presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from .._names import check_name, guess
from ._shared import SharedNetwork
from ._song_blocks import NEAR_ZERO, AttentionBlock, Block, group_norm, sinusoids, xavier

__all__ = ["SongUNet", "check_kind", "song_unet_preset"]

#: Fields of published configurations with the only value supported here.
_FIXED: dict[str, Any] = {
    "unet_type": "songunet",
    "label_dim": 0,
    "augment_dim": 0,
    "label_dropout": 0,
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
}

#: The entries in which Fast-ODE's configurations differ (Lee, Kim and Ye, ICML 2023). At 28x28 and 256x256
#: there is no attention at 16x16, as their levels are 28, 14, 7 and 256, 128, 64, 32.
_PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {"img_resolution": 28, "in_channels": 1, "channel_mult": [2, 2, 2], "dropout": 0.13},
    "cifar10": {"img_resolution": 32, "in_channels": 3, "channel_mult": [2, 2, 2], "dropout": 0.13},
    "ffhq": {"img_resolution": 64, "in_channels": 3, "channel_mult": [1, 2, 2, 2], "dropout": 0.05},
    "afhq": {"img_resolution": 64, "in_channels": 3, "channel_mult": [1, 2, 2, 2], "dropout": 0.25},
    "celebahq256": {"img_resolution": 256, "in_channels": 3, "channel_mult": [1, 2, 2, 2], "dropout": 0.25},
}
_SMALL = {"model_channels": 32, "num_blocks": 2}
_LARGE = {"model_channels": 128, "num_blocks": 4}


class SongUNet(SharedNetwork):
    """The DDPM++ U-Net of Song et al., ``(x, t) -> velocity``, with the names of EDM's code.

    Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations* (ICLR 2021),
    appendix H; parametrised as in Karras et al., *Elucidating the Design Space of Diffusion-Based
    Generative Models* (NeurIPS 2022), table 7. Configurations and weights of Fast-ODE (Lee, Kim and Ye,
    ICML 2023) fit unchanged: ``SongUNet(**json.load(file))``. The time embedding is of ``t`` as given;
    :func:`~fewstep.networks.load_fast_ode` reverses the time of published weights.

    Args:
        img_resolution: side of the square images; each level but the first halves it.
        in_channels: image channels at the input.
        out_channels: image channels at the output; twice ``in_channels`` in a Gaussian encoder.
        model_channels: base number of feature channels; a multiple of 32 always works.
        channel_mult: channel multiplier of each level, finest first.
        channel_mult_emb: features of the time embedding, in units of ``model_channels``.
        num_blocks: residual blocks per level on the way down; one more on the way up.
        attn_resolutions: resolutions with self-attention; the coarsest level always has one such block.
        dropout: dropout probability in every block, in [0, 1).
        channel_mult_noise: number of sinusoids of the time, in units of ``model_channels``.
        resample_filter: filter before halving and after doubling, along one axis, of even length.
        time_scale: the sinusoids are of ``time_scale * t``, the fastest with an angular frequency of one.
            Published weights use 1, where all but the first few sinusoids are constant over [0, 1]; to
            train a new network, 100 to 1000 resolves time better.
        checkpoint: in training, store only the inputs of the blocks and recompute the rest in the backward
            pass. It affects no weight and is not part of ``config``; the attribute may be set at any time.
        **fixed: fields of published configurations with one supported value, such as
            ``unet_type="songunet"`` and ``label_dim=0``; ``num_params`` is ignored, as published values are
            wrong.

    Shape:
        ``x``: ``(B, in_channels, img_resolution, img_resolution)``; ``t``: ``()`` or ``(B,)``; output
        ``(B, out_channels, img_resolution, img_resolution)``.

    Raises:
        ValueError: on an unknown field, a value that is not supported, or sizes that do not fit.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        *,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        channel_mult_noise: int = 1,
        resample_filter: Sequence[float] = (1, 1),
        time_scale: float = 1.0,
        checkpoint: bool = False,
        **fixed: Any,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "img_resolution": img_resolution,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "model_channels": model_channels,
            "channel_mult": list(channel_mult),
            "channel_mult_emb": channel_mult_emb,
            "num_blocks": num_blocks,
            "attn_resolutions": list(attn_resolutions),
            "dropout": dropout,
            "channel_mult_noise": channel_mult_noise,
            "resample_filter": list(resample_filter),
            "time_scale": time_scale,
        }
        _check(self.config, fixed)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.checkpoint = checkpoint
        self._sinusoids = model_channels * channel_mult_noise

        embedding = model_channels * channel_mult_emb
        self.map_layer0 = xavier(nn.Linear(self._sinusoids, embedding))
        self.map_layer1 = xavier(nn.Linear(embedding, embedding))

        block = partial(Block, embedding=embedding, dropout=dropout)
        attention = partial(AttentionBlock, embedding=embedding, dropout=dropout)
        resampling = partial(block, taps=resample_filter)
        levels = [
            (f"{side}x{side}", model_channels * multiplier, attention if side in attn_resolutions else block)
            for multiplier, side in (
                (multiplier, img_resolution >> level) for level, multiplier in enumerate(channel_mult)
            )
        ]
        coarsest = levels[-1][0]

        c = model_channels
        self.enc = nn.ModuleDict()
        self.enc[f"{levels[0][0]}_conv"] = xavier(nn.Conv2d(in_channels, c, 3, padding=1))
        skips = [c]
        for index, (level, width, make) in enumerate(levels):
            if index:
                self.enc[f"{level}_down"] = resampling(c, c, resampling="down")
                skips.append(c)
            for i in range(num_blocks):
                self.enc[f"{level}_block{i}"] = make(c, width)
                c = width
                skips.append(c)

        self.dec = nn.ModuleDict()
        for level, width, make in reversed(levels):
            if level == coarsest:
                self.dec[f"{level}_in0"] = attention(c, c)
                self.dec[f"{level}_in1"] = block(c, c)
            else:
                self.dec[f"{level}_up"] = resampling(c, c, resampling="up")
            for i in range(num_blocks + 1):
                last = i == num_blocks  # the only block of a level to attend on the way up
                self.dec[f"{level}_block{i}"] = (make if last else block)(c + skips.pop(), width)
                c = width
        self.dec[f"{levels[0][0]}_aux_norm"] = group_norm(c)
        self.dec[f"{levels[0][0]}_aux_conv"] = xavier(nn.Conv2d(c, out_channels, 3, padding=1), NEAR_ZERO)

    @property
    def output_layer(self) -> nn.Module:
        """The last layer of the network."""
        return next(layer for name, layer in self.dec.items() if name.endswith("aux_conv"))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        side = self.config["img_resolution"]
        if x.shape[1:] != (self.in_channels, side, side):
            raise ValueError(
                f"SongUNet: x has shape {tuple(x.shape)}, but this network was built for "
                f"(B, {self.in_channels}, {side}, {side})."
            )
        embedding = self._embed(t, x)
        h, skips = x, []
        for layer in self.enc.values():
            h = self._run(layer, h, embedding) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        *blocks, (_, norm), (_, conv) = self.dec.items()
        for name, layer in blocks:
            if "_block" in name:
                h = torch.cat([h, skips.pop()], dim=1)
            h = self._run(layer, h, embedding)
        velocity: Tensor = conv(F.silu(norm(h)))
        return velocity

    def _embed(self, t: Tensor, x: Tensor) -> Tensor:
        # Half precision is too coarse for time, so the sinusoids are taken in float32 at least.
        t = t.to(torch.promote_types(x.dtype, torch.float32)).expand(x.shape[0])
        h = sinusoids(self.config["time_scale"] * t, self._sinusoids).to(self.map_layer0.weight.dtype)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(h))))

    def _run(self, block: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            output: Tensor = recompute(block, h, embedding, use_reentrant=False)
        else:
            output = block(h, embedding)
        return output


def check_kind(fields: Mapping[str, Any], where: str) -> None:
    """Raise a ``ValueError`` when a published configuration is of another network than ``songunet``."""
    if (kind := fields.get("unet_type", _FIXED["unet_type"])) != _FIXED["unet_type"]:
        adm = ", guided-diffusion's U-Net," if kind == "adm" else ""
        raise ValueError(
            f"{where}: unet_type={kind!r}{adm} is not supported; it must be 'songunet', and other networks "
            "are used in Python, by fewstep.Field(network)."
        )


def _check(config: dict[str, Any], fixed: dict[str, Any]) -> None:
    check_kind(fixed, "SongUNet")
    for key, value in fixed.items():
        if key == "num_params":
            continue
        if key not in _FIXED:
            known = (*config, "checkpoint", *_FIXED, "num_params")
            raise ValueError(
                f"SongUNet: there is no argument {key!r}{guess(key, known)}; there are {', '.join(known)}."
            )
        if value != _FIXED[key]:
            raise ValueError(f"SongUNet: {key}={value!r} is not supported; it must be {_FIXED[key]!r}.")
    multipliers, side = config["channel_mult"], config["img_resolution"]
    if not multipliers or side % 2 ** (len(multipliers) - 1):
        raise ValueError(
            f"SongUNet: img_resolution={side} cannot be halved for each level of channel_mult={multipliers} "
            f"but the first; make it a multiple of {2 ** max(0, len(multipliers) - 1)}, of one level or more."
        )
    sinusoid_count = config["model_channels"] * config["channel_mult_noise"]
    if sinusoid_count < 4 or sinusoid_count % 2:
        raise ValueError(
            f"SongUNet: model_channels times channel_mult_noise is {sinusoid_count}, the number of sines and "
            "cosines of the time; it must be even and at least 4."
        )
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"SongUNet: dropout must be in [0, 1), not {config['dropout']}.")
    if len(config["resample_filter"]) % 2:
        raise ValueError(
            f"SongUNet: resample_filter={config['resample_filter']} must have an even number of taps, "
            "such as [1, 1]."
        )


def song_unet_preset(name: str, *, encoder: bool = False) -> dict[str, Any]:
    """Return the arguments of :class:`~fewstep.networks.SongUNet` that Fast-ODE used for a data set.

    They are the published ones, with ``time_scale`` 1, so that published weights fit. Training by these
    names, :class:`~fewstep.flows.config.TrainConfig` and ``configs/``, takes ``time_scale=1000`` instead.

    Args:
        name: ``mnist``, ``cifar10``, ``ffhq`` (64x64), ``afhq`` (64x64) or ``celebahq256``.
        encoder: return those of the encoder: narrower, with twice as many output channels.

    Raises:
        ValueError: on an unknown name.
    """
    check_name("song_unet_preset:", name, _PRESETS)
    preset = _PRESETS[name]
    return {
        **preset,
        "out_channels": preset["in_channels"] * (2 if encoder else 1),
        **(_SMALL if encoder or name == "mnist" else _LARGE),
        "attn_resolutions": [16],
        "channel_mult": list(preset["channel_mult"]),
    }
