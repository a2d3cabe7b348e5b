"""Networks trained with time running the other way."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ._config import describe

__all__ = ["ReverseTime"]


class ReverseTime(nn.Module):
    """``u(x, t) = -v(x, 1 - t)``, the velocity of a path that ``v`` runs from data to noise.

    Args:
        network: ``v``; its time 0 is data and 1 is noise, and its velocity is noise minus data.

    Shape:
        As the network's.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)

    @property
    def config(self) -> dict[str, Any]:
        """What the constructor was given."""
        return {"network": describe(self.network)}

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        velocity: Tensor = -self.network(x, 1 - t, **conditions)
        return velocity
