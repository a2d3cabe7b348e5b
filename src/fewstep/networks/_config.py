"""A network's class and constructor arguments, ready for JSON."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["describe"]


def describe(network: nn.Module) -> dict[str, Any]:
    """Return class and constructor arguments, as :func:`~fewstep.networks.save_network` writes them.

    Raises:
        ValueError: when the network has no ``config``.
    """
    config = getattr(network, "config", None)
    if config is None:
        raise ValueError(
            f"save_network: a {type(network).__name__} has no .config with its constructor arguments, so "
            "it could not be rebuilt; save its state_dict() instead."
        )
    return {"class": type(network).__name__, "arguments": config}
