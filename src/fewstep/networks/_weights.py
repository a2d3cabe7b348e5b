"""A network's configuration, and strict loading of its stored weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .._network import bare

__all__ = ["describe", "load_weights"]

_SHOWN = 3


def describe(network: nn.Module) -> dict[str, Any]:
    """Return class and constructor arguments, as :func:`~fewstep.networks.save_network` writes them."""
    network = bare(network)
    config = getattr(network, "config", None)
    if config is None:
        raise ValueError(
            f"save_network: a {type(network).__name__} has no .config with its constructor arguments, so "
            "it could not be rebuilt; save its state_dict() instead."
        )
    return {"class": type(network).__name__, "arguments": config}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy ``weights``, called ``source`` in errors, into ``network``; both must have the same tensors."""
    own = network.state_dict()
    faults = [
        f"{label} {_first(keys)}"
        for label, keys in (
            ("missing", [repr(key) for key in own if key not in weights]),
            ("unexpected", [repr(key) for key in weights if key not in own]),
            (
                "of another shape",
                [
                    f"{key!r} ({tuple(value.shape)} for {tuple(own[key].shape)})"
                    for key, value in weights.items()
                    if key in own and value.shape != own[key].shape
                ],
            ),
        )
        if keys
    ]
    if faults:
        raise ValueError(
            f"{source}: not the weights of the {type(network).__name__} that its configuration describes: "
            f"{'; '.join(faults)}; give the configuration that it was trained with."
        )
    network.load_state_dict(weights)


def _first(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
