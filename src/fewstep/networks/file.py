"""The network file: weights in safetensors, with the configuration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from .._files import write_safetensors
from .._hub_files import NETWORK, within
from ._weights import describe, load_weights

__all__ = ["NETWORKS", "build_network", "load_network", "network_config", "save_network"]

#: Functions that build the networks of this package from their arguments, by class.
NETWORKS: dict[str, Callable[..., nn.Module]] = {}
_CONFIG = "fewstep.network"


def save_network(path: str | Path, network: nn.Module, **facts: Any) -> None:
    """Write a network of this package and its configuration to a safetensors file.

    Args:
        path: where to write, atomically.
        network: an instance of a class of :mod:`fewstep.networks`, or what ``torch.compile`` made of one.
        **facts: further JSON values to store beside the configuration.

    Raises:
        ValueError: on a network that :func:`load_network` could not build.
    """
    config = describe(network)
    _check_class(config, "save_network")
    write_safetensors(path, network.state_dict(), {_CONFIG: json.dumps({**config, **facts})})


def load_network(path: str | Path) -> nn.Module:
    """Load a network written by :func:`save_network`, in evaluation mode with frozen weights.

    Args:
        path: the file, or a folder of ``save_pretrained``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, or this version cannot build its network.
    """
    path = within(path, NETWORK)
    config = network_config(path)
    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
    try:
        network = build_network(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its network cannot be built: {error}") from None
    load_weights(network, weights, str(path))
    return network.eval().requires_grad_(False)


def network_config(path: str | Path) -> dict[str, Any]:
    """Return the class, constructor arguments and facts in a network file, without its weights.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, or holds no network of this package.
    """
    path = within(path, NETWORK)
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_CONFIG)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: there is no such network file; fewstep.networks.save_network writes one."
        ) from None
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); write it again with save_network."
        ) from None
    if text is None:
        raise ValueError(f"{path}: holds no network of fewstep; its metadata lacks {_CONFIG!r}.")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: its metadata {_CONFIG!r} is not JSON ({error}); write it again with save_network."
        ) from None
    if not _is_description(config):
        raise ValueError(
            f"{path}: its metadata {_CONFIG!r} does not name a class and arguments; write it again with "
            "save_network."
        )
    return dict(config)


def _is_description(value: object) -> bool:
    return isinstance(value, Mapping) and "class" in value and isinstance(value.get("arguments"), Mapping)


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network described by ``{"class": ..., "arguments": {...}}``; descriptions may be nested.

    Raises:
        ValueError: when the class is unknown, or an argument is wrong.
        TypeError: when the constructor has no such argument.
    """
    _check_class(config, "class")
    arguments = {
        key: build_network(value) if _is_description(value) else value
        for key, value in config["arguments"].items()
    }
    return NETWORKS[config["class"]](**arguments)


def _check_class(config: Mapping[str, Any], label: str) -> None:
    """Raise ValueError unless every class that the description names is known."""
    if config["class"] not in NETWORKS:
        raise ValueError(
            f"{label}: {config['class']!r} is not a network of this version of fewstep; there are "
            f"{', '.join(sorted(NETWORKS))}."
        )
    for value in config["arguments"].values():
        if _is_description(value):
            _check_class(value, label)
