"""Strict loading of stored weights, with readable errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

__all__ = ["load_weights"]

_SHOWN = 3


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy ``weights`` into ``network``; both must have the same tensors.

    Args:
        network: receives the weights.
        weights: state dict.
        source: name of the weights in error messages, such as the file name.

    Raises:
        ValueError: naming the first few tensors that are missing, unexpected or of another shape.
    """
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
