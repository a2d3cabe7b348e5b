"""A network's configuration, and strict loading of its stored weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as registration

from .._network import bare
from .._reading import excerpt

__all__ = ["describe", "load_weights", "no_larger_than"]

_SHOWN = 3
#: Numbers and layers that any file's settings may ask for, so that the weights that differ can be named.
_FREE, _LAYERS = 1 << 24, 5_000


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
            f"{excerpt('; '.join(faults))}; give the configuration that it was trained with."
        )
    network.load_state_dict(weights)


@contextmanager
def no_larger_than(numbers: int) -> Iterator[None]:
    """Stop building a network, in here, that has far more numbers than its file, or very many layers.

    Raises:
        ValueError: then.
    """
    left = {"numbers": 2 * numbers + _FREE, "layers": _LAYERS}

    def spend(of: str, count: int) -> None:
        left[of] -= count
        if left[of] < 0:
            raise ValueError(f"its settings ask for far more {of} than its weights can fill")

    def tensor(module: nn.Module, name: str, value: Tensor | None) -> None:
        spend("numbers", 0 if value is None else value.numel())

    hooks = (
        registration.register_module_parameter_registration_hook(tensor),
        registration.register_module_buffer_registration_hook(tensor),
        registration.register_module_module_registration_hook(lambda *_: spend("layers", 1)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
