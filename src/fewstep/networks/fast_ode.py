"""Networks trained with Fast-ODE, the public code of Lee, Kim and Ye (ICML 2023).

Fast-ODE's time runs from 0 (data) to 1 (noise), and its velocity is noise minus data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._archives import check_packed
from .._reading import read_object, reading
from ._shared import SharedNetwork
from ._weights import describe, load_weights, no_larger_than
from .encoder import GaussianEncoder
from .song_unet import SongUNet, check_kind

__all__ = ["ReverseTime", "load_fast_ode", "load_fast_ode_encoder"]

_REQUIRED = ("img_resolution", "in_channels", "out_channels")
_ENCODER = "encoder."
_MAKER = "Fast-ODE's training"
#: Keys of Fast-ODE's training state, which is not a file of weights.
_TRAINING_STATE = {"model_state_dict", "optimizer_state_dict", "forward_model_state_dict", "iter"}


class ReverseTime(SharedNetwork):
    """``u(x, t) = -v(x, 1 - t)``: the velocity from noise to data, for a network ``v`` from data to noise.

    Args:
        network: ``v``, with time 0 data and time 1 noise, and velocity noise minus data.

    Shape:
        As for the network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments."""
        return {"network": describe(self.network)}

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        velocity: Tensor = -self.network(x, 1 - t, **conditions)
        return velocity


def load_fast_ode(checkpoint: str | Path, config: str | Path | Mapping[str, Any]) -> ReverseTime:
    """Load a Fast-ODE flow network in this package's time: ``t = 0`` noise, ``t = 1`` data.

    The network is in evaluation mode with frozen weights, ready for ``fewstep.Field(network, shape=...)``.
    :func:`~fewstep.networks.save_network` can write it.

    Args:
        checkpoint: ``flow_model_*.pth``, a bare state dict.
        config: ``config_flow_model.json``, one of Fast-ODE's ``configs/*_de.json``, or its content.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when a file is damaged or of the wrong kind, or the two do not match.
    """
    network = _song_unet(config, checkpoint)
    if network.out_channels != network.in_channels:
        raise ValueError(
            f"{_name(config)}: has out_channels={network.out_channels} and "
            f"in_channels={network.in_channels}, but a flow has as many of both; read an encoder with "
            "load_fast_ode_encoder."
        )
    weights = _read_weights(checkpoint)
    if all(key.startswith(_ENCODER) for key in weights):
        raise ValueError(
            f"{checkpoint}: holds the weights of an encoder, not of a flow; give flow_model_*.pth, or read "
            "it with load_fast_ode_encoder."
        )
    load_weights(network, weights, str(checkpoint))
    return ReverseTime(network).eval().requires_grad_(False)


def load_fast_ode_encoder(checkpoint: str | Path, config: str | Path | Mapping[str, Any]) -> GaussianEncoder:
    """Load a Fast-ODE encoder like :func:`load_fast_ode` a flow, in evaluation mode with frozen weights.

    Args:
        checkpoint: ``forward_model_*.pth``, a bare state dict.
        config: ``config_encoder.json``, one of Fast-ODE's ``configs/*_en.json``, or its content.
    """
    network = _song_unet(config, checkpoint)
    encoder = GaussianEncoder(network)
    load_weights(network, _without_prefix(_read_weights(checkpoint), _ENCODER), str(checkpoint))
    return encoder.eval().requires_grad_(False)


def _name(config: str | Path | Mapping[str, Any]) -> str:
    return "config" if isinstance(config, Mapping) else str(config)


def _song_unet(config: str | Path | Mapping[str, Any], checkpoint: str | Path) -> SongUNet:
    source = _name(config)
    fields = config if isinstance(config, Mapping) else read_object(source, "configuration file", _MAKER)
    check_kind(fields, source)
    missing = [key for key in _REQUIRED if key not in fields]
    if missing:
        raise ValueError(
            f"{source}: lacks {', '.join(map(repr, missing))}; give the configuration of a network, such as "
            "config_flow_model.json or config_encoder.json."
        )
    size = os.path.getsize(checkpoint) if os.path.isfile(checkpoint) else 0
    with reading(source, "configuration", _MAKER), no_larger_than(size):  # a byte a number, or more
        return SongUNet(**fields)


def _read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a file, without the key prefix of data-parallel training."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such checkpoint file.")
    try:
        check_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # reading damaged bytes may end in nearly any exception
        raise ValueError(
            f"{path}: not a file of weights that can be read safely ({type(error).__name__}); it is damaged, "
            "or holds more than tensors."
        ) from error
    if isinstance(content, Mapping) and content.keys() & _TRAINING_STATE:
        raise ValueError(
            f"{path}: a training state, not a network; give the flow_model_*.pth or forward_model_*.pth that "
            "was saved beside it."
        )
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise ValueError(
            f"{path}: holds no state dict of tensors; give flow_model_*.pth or forward_model_*.pth."
        )
    return _without_prefix(content, "module.")


def _without_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    whole = all(key.startswith(prefix) for key in weights)
    return {key.removeprefix(prefix) if whole else key: value for key, value in weights.items()}
