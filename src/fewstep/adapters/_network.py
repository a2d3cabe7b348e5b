"""Networks of other frameworks, called the way a field calls its own."""

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
    """A module called otherwise: ``call(network, x, time, **conditions)``.

    Args:
        network: the module; it is used, not copied, and its weights are those of this one.
        call: how to call it: a function, or a dataclass whose settings are part of what a field is known by.
    """

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        self.call = call
        self.training = network.training

    @property
    def casts_input(self) -> bool:
        """True where ``call`` computes with the states itself; see :func:`in_own_type`."""
        return getattr(self.call, "casts_input", False)

    def forward(self, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        return self.call(self.network, x, time, **conditions)

    def get_extra_state(self) -> str:
        """How the weights are read, which they do not tell."""
        return repr(self.call) if is_dataclass(self.call) else self.call.__qualname__

    def set_extra_state(self, state: str) -> None:
        """Other weights are read as these were."""


def adapted_field(
    network: Network,
    call: Callable[..., Tensor],
    schedule: Schedule,
    prediction: Prediction,
    *,
    guide: Network | None = None,
    **options: Any,
) -> Field:
    """The field of a network, and of a guide, that are called as ``call(network, x, time, **conditions)``."""
    if options.get("name") is None and isinstance(network, nn.Module):
        options["name"] = type(network).__name__  # a plain function must be named by who knows it
    away = None if guide is None else _adapt(guide, call)
    return Field(_adapt(network, call), schedule, prediction, guide=away, **options)


def _adapt(network: Network, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A module where ``network`` is one, so that a field finds its weights; else a function."""
    if isinstance(network, nn.Module):
        return Adapted(network, call)
    if not callable(network):
        raise ValueError(f"adapters: the network must be callable, not a {type(network).__name__}.")

    def model(x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        return call(network, x, time, **conditions)

    return model
