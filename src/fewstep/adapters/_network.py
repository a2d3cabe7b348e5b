"""Networks of other frameworks behind a field's call signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from .._predictions import Prediction
from ..field import Field
from ..schedules import Schedule

__all__ = ["Adapted", "Network", "adapted_field"]

Network = Callable[..., Any]


class Adapted(nn.Module):
    """A module evaluated as ``call(network, x, time, **conditions)``.

    ``call`` is a function, or a dataclass with settings, which become part of the field's fingerprint.
    """

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        self.call = call
        self.training = network.training

    @property
    def casts_input(self) -> bool:
        """True if ``call`` computes with the states itself; see :func:`in_own_type`."""
        return getattr(self.call, "casts_input", False)

    def forward(self, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        return self.call(self.network, x, time, **conditions)

    def get_extra_state(self) -> str:
        """Return the call convention, which the weights alone do not determine."""
        return repr(self.call) if is_dataclass(self.call) else self.call.__qualname__

    def set_extra_state(self, state: str) -> None:
        """Ignore the state; the call convention does not change with the weights."""


def adapted_field(
    network: Network,
    call: Callable[..., Tensor],
    schedule: Schedule,
    prediction: Prediction,
    *,
    guide: Network | None = None,
    **options: Any,
) -> Field:
    """Return the field of a network and optional guide called as ``call(network, x, time, **conditions)``."""
    if options.get("name") is None and isinstance(network, nn.Module):
        options["name"] = type(network).__name__  # a plain function must be named by the caller
    away = None if guide is None else _adapt(guide, call)
    return Field(_adapt(network, call), schedule, prediction, guide=away, **options)


def _adapt(network: Network, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a module if ``network`` is one, so that a field finds its weights, else a function."""
    if isinstance(network, nn.Module):
        return Adapted(network, call)
    if not callable(network):
        raise ValueError(f"adapters: the network must be callable, not a {type(network).__name__}.")

    def model(x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        return call(network, x, time, **conditions)

    return model
