"""What training minimises: flow matching, over a coupling that may be learned with the flow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .couplings import Coupling, Independent

__all__ = ["FlowMatching", "Losses", "flow_matching_loss"]


def flow_matching_loss(model: nn.Module, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Mean of ``(u(x_t, t) - (x1 - x0))^2`` on the straight path ``x_t = t x1 + (1 - t) x0``.

    Lipman et al., *Flow Matching for Generative Modeling* (ICLR 2023), eq. 23 with sigma_min = 0.

    Args:
        model: ``model(x, t) -> velocity``.
        x0: noise, shape ``(B, ...)``.
        x1: data, like ``x0``.
        t: times in [0, 1], shape ``(B,)``.
    """
    t_ = t.reshape(-1, *[1] * (x1.ndim - 1))
    velocity: Tensor = model(t_ * x1 + (1 - t_) * x0, t)
    return (velocity.to(x1.dtype) - (x1 - x0)).square().mean()


class Losses(NamedTuple):
    """What one batch costs; each a scalar tensor.

    ``total = flow_matching + beta * kl``, all of them means over samples and dimensions.
    """

    total: Tensor
    flow_matching: Tensor
    kl: Tensor


class FlowMatching(nn.Module):
    """A flow and its coupling as one module, so that they are trained, averaged and saved together.

    Args:
        flow: ``flow(x, t) -> velocity``.
        coupling: how noise is coupled with data; independent when ``None``.
    """

    def __init__(self, flow: nn.Module, coupling: Coupling | None = None) -> None:
        super().__init__()
        self.flow = flow
        self.coupling = Independent() if coupling is None else coupling

    def forward(
        self,
        x1: Tensor,
        x0: Tensor | None = None,
        *,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """Losses of a batch at uniformly drawn times.

        Args:
            x1: data, ``(B, ...)``.
            x0: the noises of pairs, where the data come in pairs.
            step: training step, for the schedule of beta.
            generator: where noise and times are drawn.
        """
        x0, x1, kl = self.coupling(x1, x0, generator=generator)
        device = x1.device if generator is None else generator.device
        t = torch.rand(len(x1), generator=generator, device=device, dtype=x1.dtype).to(x1.device)
        flow_matching = flow_matching_loss(self.flow, x0, x1, t)
        return Losses(flow_matching + self.coupling.kl_weight(step) * kl, flow_matching, kl)
