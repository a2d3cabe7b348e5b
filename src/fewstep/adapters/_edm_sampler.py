"""Our solvers as samplers of EDM, EDM2 and diff-sampler."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._denoiser import Denoiser
from .._fitted_for import mismatch
from .._path import check_noise
from ..schedules import VE, Schedule
from ..solver import Solver
from ._denoise import LOWEST, Denoise, check_denoiser
from ._k_diffusion_sampler import Sampler as LevelSampler
from ._k_diffusion_sampler import sampler as level_sampler
from ._network import Network

__all__ = ["Sampler", "sampler"]

#: Largest relative difference of two settings that are taken as one.
_SAME = 1e-3
#: Settings of the stochastic samplers, without effect if ``S_churn`` is 0.
_CHURN = ("S_min", "S_max", "S_noise")


def sampler(solver: Solver, schedule: Schedule | None = None) -> Sampler:
    """Return a sampler with the call shape of EDM's: ``f(net, latents, class_labels=None, ...) -> images``.

    It is a ``sampler_fn`` of EDM2's ``generate_images``, takes the place of ``edm_sampler`` in EDM's
    ``generate.py`` and of diff-sampler's samplers. The solver decides the noise levels and the number of
    calls.

    Args:
        solver: the solver.
        schedule: the schedule of the field that it was made for; by default that of its table, or of the
            field that it was fitted for.

    Raises:
        ValueError: when the schedule is missing, or is another than the table's.
    """
    return Sampler(solver, level_sampler(solver, schedule))


@dataclass(frozen=True)
class Sampler:
    """A sampler of EDM; see :func:`sampler`.

    Args:
        solver: the solver.
        inner: its steps, for states ``data + sigma noise``.
    """

    solver: Solver
    inner: LevelSampler

    @property
    def schedule(self) -> Schedule:
        """The schedule of the field that the solver was made for."""
        return self.inner.stepper.schedule

    @property
    def sigmas(self) -> Tensor:
        """The noise levels of the calls, and of the sample: ``N + 1`` numbers in float32, on the CPU."""
        return self.inner.sigmas

    def __call__(
        self,
        net: Network,
        latents: Tensor | None = None,
        class_labels: Any = None,
        *,
        noise: Tensor | None = None,
        labels: Any = None,
        gnet: Network | None = None,
        guidance: float = 1,
        dtype: torch.dtype | None = None,
        randn_like: Callable[..., Tensor] | None = None,
        sigma_min: float | None = None,
        **settings: Any,
    ) -> Tensor:
        """Return the samples of noise.

        Args:
            net: ``net(x, sigma, class_labels=labels) -> denoised``, with ``sigma`` of shape ``(B,)``.
            latents: standard normal noise, ``(B, ...)``, which is scaled here.
            class_labels: labels, passed to the network unless ``None``.
            noise: EDM2's name of ``latents``.
            labels: EDM2's name of ``class_labels``.
            gnet: EDM2's guiding network, called like ``net``.
            guidance: its scale: ``D = D_gnet + guidance (D_net - D_gnet)``.
            dtype: type of the noise, and so of the states if it is float32 or wider.
            randn_like: not used, as no noise is added.
            sigma_min: lowest level passed to the network, as for :func:`fewstep.adapters.edm.field`; the
                larger of 0.002 and ``net.sigma_min`` by default. A :class:`fewstep.Field`'s denoiser has no
                such level.
            **settings: ``condition`` and ``unconditional_condition``, diff-sampler's, go to the network.
                Others, ``num_steps`` among them, must agree with the solver, or be switched off.

        Raises:
            ValueError: when the noise is missing, the network is no denoiser or has no such levels, or a
                setting asks for another sampling than the solver's.

        Warns:
            UserWarning: when the solver was fitted for another model, schedule or guidance.
        """
        del randn_like
        x = _one(noise=noise, latents=latents)
        if x is None:
            raise ValueError(
                "sampler: latents (or noise, EDM2's name) is missing; pass torch.randn(B, C, H, W)."
            )
        check_noise(x, "latents")
        if guidance != 1 and gnet is None:
            raise ValueError(f"sampler: guidance={guidance} needs gnet, the network to guide away from.")
        labels = _one(labels=labels, class_labels=class_labels)
        conditions = {} if labels is None else {"class_labels": labels}
        for name in ("condition", "unconditional_condition"):
            value = settings.pop(name, None)
            conditions |= {} if value is None else {name: value}
        self._check(settings)
        self._warn(net, guidance)
        main = self._network(net, sigma_min)
        away = main if gnet is None else self._network(gnet, sigma_min)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            D: Tensor = main(x, sigma, **conditions)
            if guidance == 1:
                return D
            reference: Tensor = away(x, sigma, **conditions)
            return reference + guidance * (D - reference)

        x = x if dtype is None else x.to(dtype)
        return self.inner.fitting(net, x.dtype)(denoise, x * self.inner.scale)

    def _network(self, net: Network, sigma_min: float | None) -> Network:
        """Return the denoiser, not called below the lowest level of the network."""
        check_denoiser(net, "sampler")
        highest = float(getattr(net, "sigma_max", math.inf))
        if self.inner.scale > highest * (1 + _SAME):
            raise ValueError(
                f"sampler: solver {self.solver.name!r} begins at noise level {self.inner.scale:.4g}, above "
                f"sigma_max = {highest:.4g} of the network; use a solver made for a field of it, such as "
                "fewstep.adapters.edm.field(net)."
            )
        if sigma_min is not None and not 0 < sigma_min < self.inner.scale:
            raise ValueError(
                f"sampler: sigma_min must be above zero and below {self.inner.scale:.4g}, not {sigma_min}; "
                "leave it out for the lowest level of the network."
            )
        if isinstance(net, Denoiser) and sigma_min is None:
            return net
        lowest = max(LOWEST, float(getattr(net, "sigma_min", 0.0))) if sigma_min is None else sigma_min
        below = Denoise(lowest)
        return lambda x, sigma, **conditions: below(net, x, sigma, **conditions)

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Raise a ``ValueError`` for the first setting that asks for another sampling."""
        steps, rho = len(self.solver.points) - 1, getattr(self.schedule, "rho", None)
        # diff-sampler, which passes schedule_type, counts the levels.
        counted = steps + 1 if "schedule_type" in settings else steps
        own: dict[str, Any] = {
            "num_steps": counted,
            "sigma_max": self.inner.scale,
            "rho": rho,
            "schedule_rho": rho,
            "schedule_type": "polynomial" if isinstance(self.schedule, VE) else None,
        }
        for name, value in settings.items():
            if value is None or value is False or name in _CHURN:
                continue
            known = own.get(name, 0)
            if _agree(value, known):
                continue
            told = f", whose own is {known:.4g}" if name in own and isinstance(known, int | float) else ""
            raise ValueError(
                f"sampler: {name}={value!r} asks for another sampling than solver {self.solver.name!r} makes "
                f"with {self.solver.nfe} calls in {steps} steps{told}; leave it out, or use another solver."
            )

    def _warn(self, net: Network, guidance: float) -> None:
        facts = {"guidance": guidance, "schedule": self.schedule.to_dict(), "model": type(net).__name__}
        if isinstance(net, Denoiser):
            described = net.field.describe()
            facts |= {name: described[name] for name in ("model", "schedule")}
            facts |= {"guidance": described["guidance"]} if guidance == 1 else {}
            facts |= {"named": False} if described.get("named") is False else {}
        elif not isinstance(net, torch.nn.Module):
            facts["named"] = False
        found = mismatch(self.solver.name, self.solver.fitted_for, facts)
        if found is not None:
            warnings.warn(f"{found}; fit again for it.", stacklevel=3)


def _one(**given: Any) -> Any:
    """Return the argument that was passed under one of its two names."""
    passed = {name: value for name, value in given.items() if value is not None}
    if len(passed) > 1:
        raise ValueError(f"sampler: {' and '.join(passed)} are two names of one argument; pass one of them.")
    return next(iter(passed.values()), None)


def _agree(value: Any, known: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return isinstance(value, str) and value == known
    return isinstance(known, int | float) and math.isclose(value, known, rel_tol=_SAME)
