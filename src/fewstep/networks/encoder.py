"""The encoder of a learned coupling: a Gaussian over the noise for each data sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._shared import SharedNetwork
from ._weights import describe

__all__ = ["GaussianEncoder"]


class GaussianEncoder(SharedNetwork):
    """``x -> (mean, logvar)`` of ``q(z | x) = N(mean, diag exp(logvar))``, the noise coupled to ``x``.

    Lee, Kim and Ye, *Minimizing Trajectory Curvature of ODE-based Generative Models* (ICML 2023), section 3.
    The network has twice as many output as input channels and is called at ``t = 1``; the first half of the
    output is the mean. The constructor sets the network's last layer to zero, so that the encoder starts at
    N(0, I), the independent coupling; load trained weights afterwards.

    Args:
        network: ``network(x, t) -> (B, 2 C, ...)``, with its last layer as the attribute ``output_layer``, as
            the networks of this package have it; this layer is set to zero.

    Shape:
        ``x``: ``(B, C, ...)``; ``mean`` and ``logvar``: like ``x``.

    Raises:
        ValueError: when the network does not double the channels, or has no ``output_layer``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        given, made = (getattr(network, name, None) for name in ("in_channels", "out_channels"))
        if given is not None and made is not None and made != 2 * given:
            raise ValueError(
                f"GaussianEncoder: the network has {made} output channels for {given} input channels, but an "
                f"encoder needs {2 * given}, a mean and a log-variance for each; build it with "
                f"out_channels={2 * given}."
            )
        layer = getattr(network, "output_layer", None)
        if not isinstance(layer, nn.Module):
            raise ValueError(
                f"GaussianEncoder: a {type(network).__name__} does not say which layer is its last; give it "
                "an attribute output_layer that holds this layer."
            )
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        self.network = network
        self.train(network.training)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments."""
        return {"network": describe(self.network)}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        time = torch.ones(x.shape[0], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        output = self.network(x, time)
        if output.shape != (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
            raise ValueError(
                f"GaussianEncoder: the network returned shape {tuple(output.shape)} for an input of shape "
                f"{tuple(x.shape)}; an encoder must double dimension 1 and keep the others."
            )
        mean, logvar = output.to(x.dtype).chunk(2, dim=1)
        return mean, logvar
