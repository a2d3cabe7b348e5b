"""Couplings: the joint law of noise and data that a flow is trained on.

A flow learns ``E[x1 - x0 | x_t]``. The more information ``x0`` carries about ``x1``, the less the straight
lines between them cross, and the less the trajectories of the flow curve (Lee, Kim and Ye, *Minimizing
Trajectory Curvature of ODE-based Generative Models*, ICML 2023). All couplings have the same call,

    ``x0, x1, kl = coupling(x1)``,

and the method of torchcfm's flow matchers, so that they fit training loops written for torchcfm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..data import Dataset
from .kl_weight import KLWeight

__all__ = ["Coupled", "Coupling", "Independent", "Learned", "Mixed", "Paired", "without_kl"]

_Self = TypeVar("_Self", bound="Coupling")


class Coupled(NamedTuple):
    """Coupled noise and data, and the KL divergence of the coupling.

    Shape:
        ``x0``, ``x1``: ``(B, ...)``, one pair per row; ``kl``: ``()``, the mean over samples and
        dimensions of ``KL(q(x0 | x1) || N(0, I))``, 0 for couplings that are not learned.
    """

    x0: Tensor
    x1: Tensor
    kl: Tensor


class Coupling(nn.Module):
    """The base of all couplings; draws a noise for each data sample.

    Subclasses define in :meth:`couple` how standard normal noise becomes ``x0``. The data keep their order,
    so that labels and other conditions need no reordering.
    """

    #: Name in a configuration and on the command line; empty if it needs paired data.
    name: ClassVar[str] = ""
    #: Whether its noises, over all data, are exactly N(0, I), from which sampling starts.
    exact: ClassVar[bool] = False

    @classmethod
    def build(cls: type[_Self], encoder: Callable[[], nn.Module], beta: float | KLWeight) -> _Self:
        """Return the coupling named in a configuration.

        Args:
            encoder: makes a fresh encoder, where one is learned.
            beta: weight of the KL term of the encoder.
        """
        return cls()

    def __init__(self) -> None:
        super().__init__()
        self._last_kl: Tensor | None = None

    def prepare(self, data: Dataset, *, seed: int = 0, progress: bool = False) -> Dataset:
        """Return the data to train on: those given, or pairs of them and noises coupled beforehand.

        Args:
            data: training or validation data.
            seed: seed of the noises.
            progress: show a progress bar.
        """
        return data

    def forward(
        self, x1: Tensor, x0: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Coupled:
        """Couple data with noise.

        Args:
            x1: data, ``(B, ...)``, floating point.
            x0: standard normal noise to transform, like ``x1``; drawn when ``None``.
            generator: source of randomness; torch's global generator when ``None``.
        """
        if x0 is None:
            x0 = _draw(torch.randn, x1.shape, x1, generator)
        if x0.shape != x1.shape:
            raise ValueError(
                f"x0: must have the shape of x1, {tuple(x1.shape)}, not {tuple(x0.shape)}; pass one noise "
                "per data sample."
            )
        return self.couple(x0, x1, generator)

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        """Transform standard normal ``noise`` into the noise coupled with ``x1``."""
        raise NotImplementedError(f"{type(self).__name__} must define couple.")

    def kl_weight(self, step: int) -> float:
        """Return the weight (beta) of the KL term at a training step; 0 for fixed couplings."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify the coupling."""
        return {"name": type(self).__name__, "exact": self.exact}

    def sample_location_and_conditional_flow(
        self, x0: Tensor, x1: Tensor, t: Tensor | None = None, return_noise: bool = False
    ) -> tuple[Tensor, ...]:
        """Return ``t, x_t, u_t``, and the noise if requested, like torchcfm's flow matchers.

        ``x0`` must be standard normal noise, or the noises of pairs for :class:`Paired`; the third
        result is the regression target ``x1 - x0`` of the coupled pair. The returned noise, scaled by sigma
        in torchcfm, is zero: these paths are straight lines.

        A learned coupling adds a KL term to the loss, returned by :meth:`penalty` (0 for the others)::

            t, xt, ut = coupling.sample_location_and_conditional_flow(x0, x1)
            loss = (model(t, xt) - ut).square().mean() + coupling.penalty()
        """
        x0, x1, self._last_kl = self(x1, x0)
        if t is None:
            t = torch.rand(len(x1), dtype=x1.dtype, device=x1.device)
        t_ = t.reshape(-1, *[1] * (x1.ndim - 1))
        located = (t, t_ * x1 + (1 - t_) * x0, x1 - x0)
        return (*located, torch.zeros_like(x1)) if return_noise else located

    def penalty(self, step: int = 0) -> Tensor:
        """Return ``beta(step) * KL`` of the last :meth:`sample_location_and_conditional_flow`.

        Raises:
            ValueError: before the first call.
        """
        if self._last_kl is None:
            raise ValueError(
                "penalty: there is no KL term yet; call sample_location_and_conditional_flow first."
            )
        return self.kl_weight(step) * self._last_kl


class Independent(Coupling):
    """Noise independent of the data: plain flow matching, or 1-rectified flow."""

    name = "independent"
    exact = True

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        return without_kl(noise, x1)


class Paired(Coupling):
    """Noise given with the data, as in the pairs of reflow, and used unchanged.

    Liu, Gong and Liu, *Flow Straight and Fast* (ICLR 2023).
    """

    def forward(
        self, x1: Tensor, x0: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Coupled:
        if x0 is None:
            raise ValueError(
                "x0: this coupling takes pairs of noise and data, but got data alone; train on pairs, such "
                "as those that `fewstep reflow` or PooledOT().prepare(data) makes, or use another "
                "coupling."
            )
        return super().forward(x1, x0, generator=generator)

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        return without_kl(noise, x1)


class Learned(Coupling):
    """Noise from a Gaussian encoder, ``x0 = mean(x1) + std(x1) * noise``, learned with the flow.

    Lee, Kim and Ye (2023), eq. 10: encoder and flow minimise
    ``E (u(x_t, t) - (x1 - x0))^2 + beta KL(q(x0 | x1) || N(0, I))`` jointly. The gradient reaches the
    encoder through ``x_t`` and through the target. Sampling does not need the encoder.

    Args:
        encoder: ``encoder(x1) -> (mean, logvar)``, each like ``x1``.
        beta: weight of the KL term: a number, or a schedule over training. Around 5 is best for sampling
            with up to 5 network calls, around 20 for 20 or more.
    """

    name = "learned"

    @classmethod
    def build(cls: type[_Self], encoder: Callable[[], nn.Module], beta: float | KLWeight) -> _Self:
        return cls(encoder(), beta)  # type: ignore[call-arg]

    def __init__(
        self, encoder: Callable[[Tensor], tuple[Tensor, Tensor]], beta: float | KLWeight = 10.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.beta = beta if isinstance(beta, KLWeight) else KLWeight(beta)

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        mean, logvar = self._encode(x1)
        return Coupled(mean + (logvar / 2).exp() * noise, x1, _divergence(mean, logvar))

    def kl_weight(self, step: int) -> float:
        return self.beta(step)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "beta": self.beta.describe()}

    def _encode(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.encoder(x1)
        if mean.shape != x1.shape or logvar.shape != x1.shape:
            raise ValueError(
                f"encoder: must return a mean and a log-variance of the data's shape, {tuple(x1.shape)}, not "
                f"{tuple(mean.shape)} and {tuple(logvar.shape)}; give it twice the channels of the flow."
            )
        return mean.to(x1.dtype), logvar.to(x1.dtype)  # under autocast they come in half precision


class Mixed(Learned):
    """The learned coupling mixed with the prior: ``x0 ~ N(w mean, w var + 1 - w)``, ``w ~ U[0, 1]``.

    Over all data, a free Gaussian encoder shrinks the variance of the noises below that of the noise
    that sampling starts from, which costs quality at many network calls. Here each sample draws a weight
    between the encoder (``w = 1``) and the independent coupling (``w = 0``).
    """

    name = "mixed"

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        mean, logvar = self._encode(x1)
        w = _draw(torch.rand, (len(x1), *[1] * (x1.ndim - 1)), x1, generator)
        std = (w * logvar.exp() + 1 - w).sqrt()
        return Coupled(w * mean + std * noise, x1, _divergence(mean, logvar))


def _divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """``KL(N(mean, exp(logvar)) || N(0, I))``, the mean over samples and dimensions."""
    return (mean.square() + logvar.exp() - 1 - logvar).mean() / 2


def _draw(
    kind: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw on the generator's device and move the result to the device of ``like``."""
    device = like.device if generator is None else generator.device
    drawn = kind(shape, generator=generator, dtype=like.dtype, device=device)
    return drawn.to(like.device)


def without_kl(noise: Tensor, x1: Tensor) -> Coupled:
    """Return noise and data of a coupling that is not learned."""
    return Coupled(noise, x1, torch.zeros((), dtype=x1.dtype, device=x1.device))
