"""Training objectives: flow matching over a fixed or learned coupling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._network import bare
from ..data import Dataset, is_picture
from ..field import Field
from ..schedules import CondOT, Schedule
from . import _monitor
from .couplings import Coupling, Independent, Learned, Paired

__all__ = ["FlowMatching", "Objective", "flow_matching_loss"]


def flow_matching_loss(
    model: nn.Module,
    x0: Tensor,
    x1: Tensor,
    t: Tensor,
    schedule: Schedule | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean of ``w (u(x_t, t) - dx_t/dt)^2`` on the path ``x_t = alpha(t) x1 + sigma(t) x0``.

    Lipman et al., *Flow Matching for Generative Modeling* (ICLR 2023), eq. 9; on the straight path
    ``dx_t/dt = x1 - x0``, eq. 23 with sigma_min = 0.

    Args:
        model: ``model(x, t) -> velocity``.
        x0: noise, shape ``(B, ...)``.
        x1: data, like ``x0``.
        t: times in [0, 1], shape ``(B,)``.
        schedule: the path; straight (``CondOT``) when ``None``.
        weights: ``w``, the weight of each coordinate's squared error, broadcasting against one sample; 1
            when ``None``.
    """
    at = (CondOT() if schedule is None else schedule)(t.reshape(-1, *[1] * (x1.ndim - 1)))
    velocity: Tensor = model(at.alpha * x1 + at.sigma * x0, t)
    square = (velocity.to(x1.dtype) - (at.d_alpha * x1 + at.d_sigma * x0)).square()
    return (square if weights is None else weights * square).mean()


class Objective(nn.Module, ABC):
    """The networks that a :class:`~fewstep.flows.Trainer` trains, and their losses.

    Args:
        flow: the network to train, ``flow(x, t) -> velocity``.
        schedule: the path from noise to data; straight (``CondOT``) when ``None``.
    """

    def __init__(self, flow: nn.Module, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.flow = flow
        self.schedule = CondOT() if schedule is None else schedule

    @abstractmethod
    def forward(
        self,
        x1: Tensor,
        x0: Tensor | None = None,
        *,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the scalar losses of a batch by name; ``loss`` is minimised.

        Args:
            x1: data, ``(B, ...)``.
            x0: the noises, if the data are pairs.
            step: training step, counted from 0.
            generator: source of randomness.
        """

    def prepare(self, data: Dataset, *, seed: int, progress: bool) -> Dataset:
        """Return the data to train on: those given, or pairs of them and noises; see `Coupling.prepare`."""
        return data

    @abstractmethod
    def check(self, x1: Tensor, x0: Tensor | None, generator: torch.Generator) -> None:
        """Run one batch to check shapes.

        Raises:
            ValueError: when data and networks do not match.
        """

    @abstractmethod
    def preview(self, shape: tuple[int, ...], device: torch.device, stem: Path) -> dict[str, float]:
        """Sample, write images to files that begin with ``stem``, and return measured values by name."""

    def describe(self) -> dict[str, Any]:
        """Return the facts that a resumed run must share, ready for JSON."""
        bare_flow = bare(self.flow)
        flow = {"name": type(bare_flow).__name__, **getattr(bare_flow, "config", {})}
        # The default path is left out.
        path = {} if self.schedule == CondOT() else {"schedule": self.schedule.to_dict()}
        return {"objective": {"name": type(self).__name__, **path}, "flow": flow}

    def validate(
        self, batches: Sequence[tuple[Tensor, Tensor | None]], generator: torch.Generator
    ) -> dict[str, float]:
        """Return means over batches ``(x1, x0)`` of the losses, with weights as at the end of training."""
        return _monitor.means((len(x1), self(x1, x0, step=2**62, generator=generator)) for x1, x0 in batches)

    def exports(self) -> dict[str, nn.Module]:
        """Return the networks to write at the end, by file name."""
        return {"flow": self.flow}


class FlowMatching(Objective):
    """A flow and its coupling, trained, averaged and saved together.

    The losses are ``flow_matching``, ``kl`` and their sum ``loss = flow_matching + beta kl``, means over
    samples and dimensions at uniformly drawn times.

    Args:
        flow: ``flow(x, t) -> velocity``.
        coupling: how noise is coupled with data; independent when ``None``.
        schedule: the path from noise to data; straight (``CondOT``) when ``None``. ``VP()`` trains the
            flow of a diffusion model.
        units: size of each coordinate's unit, broadcasting against a sample: squared errors are multiplied
            by its square. Training with noise ``N(0, diag(s^2))`` equals training with N(0, I) on data
            divided by ``s``, and ``units=s`` gives the same loss. (The KL term has no units.)
    """

    def __init__(
        self,
        flow: nn.Module,
        coupling: Coupling | None = None,
        schedule: Schedule | None = None,
        units: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(flow, schedule)
        self.coupling = Independent() if coupling is None else coupling
        self._shown: tuple[Tensor, Tensor | None] | None = None
        self.weights: Tensor | None
        squares = None if units is None else torch.as_tensor(units, dtype=torch.float32).square()
        self.register_buffer("weights", squares, persistent=False)

    def forward(
        self,
        x1: Tensor,
        x0: Tensor | None = None,
        *,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        x0, x1, kl = self.coupling(x1, x0, generator=generator)
        device = x1.device if generator is None else generator.device
        t = torch.rand(len(x1), generator=generator, device=device, dtype=x1.dtype).to(x1.device)
        flow_matching = flow_matching_loss(self.flow, x0, x1, t, self.schedule, self.weights)
        beta = torch.full_like(kl, self.coupling.kl_weight(step))
        return {"loss": flow_matching + beta * kl, "flow_matching": flow_matching, "kl": kl, "beta": beta}

    def prepare(self, data: Dataset, *, seed: int, progress: bool) -> Dataset:
        return self.coupling.prepare(data, seed=seed, progress=progress)

    def check(self, x1: Tensor, x0: Tensor | None, generator: torch.Generator) -> None:
        if x0 is not None and not isinstance(self.coupling, Paired):
            raise ValueError(
                "coupling: the data are pairs with their own noises, which "
                f"{type(self.coupling).__name__} would not use; train on them with Paired."
            )
        x0 = self.coupling(x1, x0, generator=generator).x0
        velocity = self.flow(x0, torch.rand(len(x1), device=x1.device))
        if velocity.shape != x1.shape:
            raise ValueError(
                f"flow: returns shape {tuple(velocity.shape)} for data of shape {tuple(x1.shape)}; a "
                "velocity must have the data's shape: give the network as many channels as the data."
            )

    def preview(self, shape: tuple[int, ...], device: torch.device, stem: Path) -> dict[str, float]:
        field = Field(self.flow, self.schedule, shape=shape)
        if self._shown is not None and is_picture(shape):
            _monitor.preview_of_data(field, *self._shown, stem)
        return _monitor.preview(field, device, stem)

    def describe(self) -> dict[str, Any]:
        facts = {**super().describe(), "coupling": self.coupling.describe()}
        if self.weights is not None:
            facts["objective"]["weights"] = self.weights.tolist()
        return facts

    def validate(
        self, batches: Sequence[tuple[Tensor, Tensor | None]], generator: torch.Generator
    ) -> dict[str, float]:
        losses = super().validate(batches, generator)
        noises = [self.coupling(x1, x0, generator=generator).x0 for x1, x0 in batches]
        first = None if isinstance(self.coupling, Independent) else noises[0][: _monitor.SHOWN]
        self._shown = batches[0][0][: _monitor.SHOWN], first  # by the next preview
        return losses | _monitor.aggregate_posterior(torch.cat(noises))

    def exports(self) -> dict[str, nn.Module]:
        networks = super().exports()
        if isinstance(self.coupling, Learned) and isinstance(self.coupling.encoder, nn.Module):
            networks["encoder"] = self.coupling.encoder
        return networks
