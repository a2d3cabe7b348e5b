"""Constructor arguments of published networks, by data set."""

from __future__ import annotations

from typing import Any

__all__ = ["song_unet_preset"]

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


def song_unet_preset(name: str, *, encoder: bool = False) -> dict[str, Any]:
    """Return the arguments of :class:`~fewstep.networks.SongUNet` that Fast-ODE used for a data set.

    Args:
        name: ``mnist``, ``cifar10``, ``ffhq`` (64x64), ``afhq`` (64x64) or ``celebahq256``.
        encoder: return those of the encoder: narrower, with twice as many output channels.

    Raises:
        ValueError: on an unknown name.
    """
    if name not in _PRESETS:
        raise ValueError(f"song_unet_preset: no preset {name!r}; there are {', '.join(_PRESETS)}.")
    preset = _PRESETS[name]
    return {
        **preset,
        "out_channels": preset["in_channels"] * (2 if encoder else 1),
        **(_SMALL if encoder or name == "mnist" else _LARGE),
        "attn_resolutions": [16],
        "channel_mult": list(preset["channel_mult"]),
    }
