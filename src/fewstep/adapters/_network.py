"""Networks of other frameworks, called the way a field calls its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .._clock import Clock, network_time
from .._predictions import Prediction
from ..field import Field
from ..schedules import Schedule

__all__ = ["Adapted", "AtLeast", "Network", "adapted_field"]

Network = Callable[..., Any]


@dataclass(frozen=True)
class AtLeast:
    """A clock that stops at ``lowest``, below which a network was never trained."""

    clock: Clock
    schedule: Schedule = field(repr=False)
    lowest: float

    def __call__(self, t: Tensor) -> Tensor:
        return network_time(self.clock, self.schedule, t).clamp(min=self.lowest)


class Adapted(nn.Module):
    """A module called otherwise: ``call(network, x, time, **conditions)``.

    Args:
        network: the module; it is used, not copied, and its weights are those of this one.
        call: how to call it.
    """

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        self.call = call
        self.training = network.training

    def forward(self, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        return self.call(self.network, x, time, **conditions)


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
