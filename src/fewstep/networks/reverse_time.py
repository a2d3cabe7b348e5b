"""Networks trained with time running from data to noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ._config import describe

__all__ = ["ReverseTime"]


class ReverseTime(nn.Module):
    """``u(x, t) = -v(x, 1 - t)``: the velocity from noise to data, for a network ``v`` from data to noise.

    Args:
        network: ``v``, with time 0 data and time 1 noise, and velocity noise minus data.

    Shape:
        As for the network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments."""
        return {"network": describe(self.network)}

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        velocity: Tensor = -self.network(x, 1 - t, **conditions)
        return velocity
