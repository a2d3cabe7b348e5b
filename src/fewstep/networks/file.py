"""The network file: weights in safetensors, with the configuration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .._files import plain_name, write_safetensors
from .._hub_files import NETWORK, within
from .._names import guess
from .._reading import check, check_arguments, read_tensors, reading
from ._weights import describe, load_weights, no_larger_than

__all__ = ["NETWORKS", "build_network", "load_network", "network_config", "save_network"]

#: Functions that build the networks of this package from their arguments, by class.
NETWORKS: dict[str, Callable[..., nn.Module]] = {}
_CONFIG = "fewstep.network"
#: Kinds of what is known there, beside further facts.
_KINDS = {
    "class": str,
    "arguments": {"shape": ([int], None)},
    "shape": ([int], None),
    "schedule": ({"name": str}, None),
    "prediction": (str, None),
    "clock": ([float], str, None),
}


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
    weights = {plain_name(name): x for name, x in network.state_dict().items()}
    write_safetensors(path, weights, {_CONFIG: json.dumps({**config, **facts})})


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
    with reading(path, "network file", "save_network"):
        weights = read_tensors(path, None).tensors
        with no_larger_than(sum(each.numel() for each in weights.values())):
            network = build_network(config)
        load_weights(network, weights, str(path))
    return network.eval().requires_grad_(False)


def network_config(path: str | Path) -> dict[str, Any]:
    """Return the class, constructor arguments and facts in a network file, without its weights.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, or holds no network of this package.
    """
    path = within(path, NETWORK)
    with reading(path, "network file", "fewstep.networks.save_network"):
        config = read_tensors(path, _CONFIG, only=()).facts
        check(config, _KINDS, "")
    return config


def _is_description(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("class"), str) and isinstance(value.get("arguments"), Mapping)


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
    build = NETWORKS[config["class"]]
    check_arguments(build, arguments)
    return build(**arguments)


def _check_class(config: Mapping[str, Any], label: str) -> None:
    """Raise ValueError unless every class that the description names is known."""
    if (name := config["class"]) not in NETWORKS:
        raise ValueError(
            f"{label}: {name!r} is not a network of this version of fewstep{guess(name, NETWORKS)}; there "
            f"are {', '.join(sorted(NETWORKS))}."
        )
    for value in config["arguments"].values():
        if _is_description(value):
            _check_class(value, label)
