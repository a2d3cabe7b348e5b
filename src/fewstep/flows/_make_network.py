"""Networks from their specification in a training configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..networks import build_network, song_unet_preset

__all__ = ["make_network", "smaller"]

#: A name, a JSON file of Fast-ODE, or a class or preset with constructor arguments.
Spec = str | Mapping[str, Any]


def make_network(spec: Spec, shape: tuple[int, ...], outputs: int | None = None) -> nn.Module:
    """Build the network that ``spec`` describes, for samples of a shape.

    Args:
        spec: see :class:`~fewstep.flows.TrainConfig`.
        shape: shape of one sample.
        outputs: output channels of an encoder; ``None`` for a flow, with those of the samples.

    Raises:
        ValueError: when there is no such network, or its arguments are wrong.
    """
    entries = _entries(spec, encoder=outputs is not None)
    kind = entries.pop("class")
    if kind != "MLP" and len(shape) != 3:
        raise ValueError(f"network: a {kind} takes images, not samples of shape {shape}; use 'mlp'.")
    fitting: dict[str, dict[str, Any]] = {
        "MLP": {"shape": shape, "out_channels": outputs},
        "UNet": {"channels": shape[0], "out_channels": outputs},
        "SongUNet": {
            "img_resolution": shape[-1],
            "in_channels": shape[0],
            "out_channels": outputs or shape[0],
        },
    }
    try:
        return build_network({"class": kind, "arguments": fitting.get(kind, {}) | entries})
    except TypeError as error:  # an argument that the constructor does not have
        raise ValueError(f"network: {kind} cannot be built: {error}.") from None


def smaller(spec: Spec) -> Spec:
    """Return the default encoder for a network: the published one, or a smaller network of its class.

    Raises:
        ValueError: when the network's class has no smaller version.
    """
    preset = spec.get("preset") if isinstance(spec, Mapping) else spec
    if preset and not preset.endswith(".json") and preset not in ("unet", "mlp"):
        return str(preset)  # a published network comes with its encoder
    entries = _entries(spec, encoder=False)
    width: dict[str, int] = {"UNet": 64, "MLP": 256}
    if entries["class"] not in width:
        raise ValueError(
            "encoder: must be given for this network, which has no smaller version; name one, such as "
            "encoder={class: UNet, width: 32}."
        )
    half = int(entries.get("width", width[entries["class"]])) // 2
    return {**entries, "width": max(8, half // 8 * 8), "blocks": 1}


def _entries(spec: Spec, encoder: bool) -> dict[str, Any]:
    """Return class and arguments in one mapping."""
    if isinstance(spec, Mapping):
        if "preset" in spec:
            changes = {key: value for key, value in spec.items() if key != "preset"}
            return _entries(spec["preset"], encoder) | changes
        if "class" not in spec:
            raise ValueError(f"network: must name its class, as in {{class: UNet, width: 64}}, not {spec!r}.")
        return dict(spec)
    if spec in ("unet", "mlp"):
        return {"class": {"unet": "UNet", "mlp": "MLP"}[spec]}
    if spec.endswith(".json"):
        try:
            return {"class": "SongUNet", **json.loads(Path(spec).read_text(encoding="utf-8"))}
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"network: {spec} cannot be read as a JSON object ({error}).") from None
    # Published networks embed t unscaled, where most sinusoids are nearly constant; new ones scale it.
    return {"class": "SongUNet", **song_unet_preset(spec, encoder=encoder), "time_scale": 1000.0}
