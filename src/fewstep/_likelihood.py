"""Log-likelihoods of data under a flow, by the change of variables along its ODE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._dopri5 import dopri5
from ._network import state_type
from ._progress import progress_bar
from ._ranges import COUNT, NATURAL, POSITIVE, check_range
from .field import Field, check_field

__all__ = ["Likelihood", "log_likelihood"]


class Likelihood(NamedTuple):
    """Log-densities of some data under a flow, detached from every graph.

    Attributes:
        log_prob: logarithm of the density at ``t = 1`` in nats, float64 of shape ``(B,)``.
        error: standard error of ``log_prob`` over the probes, float64 of shape ``(B,)``: 0 for the exact
            divergence, NaN for one probe. The error of the ODE solver is not included.
        latents: the states at ``t = 0`` that flow to the data, like ``x1``.
        nfe: network calls per sample; the largest over batches.
        backwards: backward passes through the network per sample, for the divergence: ``nfe`` times the
            probes, or ``nfe`` times the dimension if it is exact.
    """

    log_prob: Tensor
    error: Tensor
    latents: Tensor
    nfe: int
    backwards: int

    def bits_per_dim(self, bin_width: float = 1.0) -> Tensor:
        """Return ``-log2(p(x) bin_width^D) / D``, float64 of shape ``(B,)``.

        With the default of 1 it is that of the continuous density, in the units of ``x1``. With the distance
        between neighbouring levels it is that of a quantised value: 8-bit images in [-1, 1] have
        ``bin_width = 2 / 255``, which adds ``log2(127.5) = 6.994`` bits; if 256 bins cover [-1, 1], as after
        dequantisation by uniform noise, it is ``2 / 256``, which adds 7. Its mean bounds a code length only
        for data dequantised by noise as wide as a bin: on the levels themselves a density has no upper bound.

        Raises:
            ValueError: when ``bin_width`` is not positive.
        """
        (bin_width,) = check_range("bits_per_dim", POSITIVE, bin_width=bin_width)
        dimension = math.prod(self.latents.shape[1:])
        return -self.log_prob / (dimension * math.log(2)) - math.log2(bin_width)


def log_likelihood(
    field: Field,
    x1: Tensor,
    *,
    divergence: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    seed: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    dtype: torch.dtype | None = None,
    batch: int = 256,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> Likelihood:
    """Compute the log-density of data under the flow of a field, solved from ``t = 1`` back to ``t = 0``.

    ``log p_1(x_1) = log p_0(x_0) - int_0^1 div u(x_t, t) dt`` (Chen et al. 2018, *Neural ordinary
    differential equations*, theorem 1; Song et al. 2021, eq. 39), where ``p_0`` is the Gaussian that
    :meth:`Field.initial_state` draws from. State and integral are solved together by torchdiffeq's
    ``dopri5`` with one step size for a batch; each of them must meet the tolerances. Where a schedule ends
    with ``sigma(1) > 0``, the density is that of ``x_t`` at ``t = 1``, noise included.

    The divergence needs the network's derivative by ``x``. The exact one takes one backward pass a dimension
    at every call. Hutchinson's estimate ``v . (du/dx) v`` with Rademacher ``v`` (Grathwohl et al. 2019,
    *FFJORD*) takes one per probe; the probes are fixed along the trajectory. It leaves ``log_prob``, though
    not the density, unbiased up to the solver's error, and its spread gives :attr:`Likelihood.error`.
    Backward passes are made one after the other: memory is that of one call with its graph for ``batch``
    samples.

    Args:
        field: the field; its parameters get no gradients.
        x1: data in the units of the field, ``(B, ...)``; gradients do not flow back to it.
        divergence: ``"exact"`` or ``"hutchinson"``.
        probes: probes per sample for Hutchinson's estimate, at least 1. Larger numbers extend smaller ones.
        seed: seed of the probes; those of sample ``k`` are keyed by ``(seed, k)``.
        rtol: relative tolerance of the local error.
        atol: absolute tolerance of the local error, in the units of ``x1`` and in nats.
        max_nfe: most network calls per batch.
        dtype: type of the integrated state, that of ``x1`` (float32 at least) by default; float64
            avoids rounding of the state, while the field still gets the type of ``x1``.
        batch: samples solved together. It changes results within the tolerances only.
        progress: show a progress bar of the samples.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample, or one row for all; see :meth:`Field.bind`.

    Returns:
        The log-densities, latents and costs. One further call, for one sample, checks that
        autograd differentiates the network; it is not counted.

    Raises:
        ValueError: when an argument is out of range, a condition has a wrong number of rows, or autograd
            cannot differentiate the network by ``x``. A velocity independent of ``x`` needs ``+ 0 * x``.
        CallLimitError: when ``max_nfe`` calls are not enough.
        FloatingPointError: when velocity or divergence is NaN or infinite, or the step size underflows.
    """
    probes, seed, batch = _checked(x1, divergence, probes, seed, batch)
    bound = check_field(field, "log_likelihood").bind(conditions, per_sample, len(x1))
    parts: list[Likelihood] = []
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    # Gradients are needed here even if the caller has switched them off or uses inference mode.
    with torch.inference_mode(False), progress_bar(progress, total=len(x1), desc="likelihood") as bar:
        x1 = x1.detach().to(state_type(x1.dtype), copy=True)
        _check_autograd(bound.rows(slice(0, 1)), x1[:1])
        for first in range(0, len(x1), batch):
            index = slice(first, first + batch)
            x = x1[index]
            v = None if divergence == "exact" else _rademacher(seed, first, probes, x)
            parts.append(_solve(bound.rows(index), x, v, dtype, options))
            bar.update(len(x))
    return Likelihood(
        torch.cat([part.log_prob for part in parts]),
        torch.cat([part.error for part in parts]),
        torch.cat([part.latents for part in parts]),
        max(part.nfe for part in parts),
        max(part.backwards for part in parts),
    )


def _solve(
    field: Field,
    x1: Tensor,
    probes: Tensor | None,
    dtype: torch.dtype | None,
    options: Mapping[str, Any],
) -> Likelihood:
    """Solve one batch; ``probes`` is ``(K, B, ...)``, or ``None`` for the exact divergence."""
    state_dtype = state_type(dtype or x1.dtype)

    def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            x = state[0].detach().to(x1.dtype).requires_grad_()
            u = field(x, t)
            rates = _trace(u, x)[:, None] if probes is None else _quadratic_forms(u, x, probes)
        return u.detach().to(state_dtype), rates.to(state_dtype)

    start = x1.to(state_dtype), x1.new_zeros(len(x1), 1 if probes is None else len(probes), dtype=state_dtype)
    names = ("network", "derivative of the network")
    (states, integrals), nfe = dopri5(
        augmented, start, (1.0, 0.0), "log_likelihood", names, jumps=field.discontinuities, **options
    )
    # Solved from 1 to 0, the integral has the sign that it has in log p_1.
    estimates = _initial_log_prob(field, states[-1])[:, None] + integrals[-1].double()
    log_prob = estimates.mean(dim=1)
    if probes is None:
        error, products = torch.zeros_like(log_prob), x1[0].numel()
    else:
        K = products = len(probes)
        error = ((estimates - log_prob[:, None]).square().sum(dim=1) / (K * (K - 1))).sqrt()
    return Likelihood(log_prob, error, states[-1].to(x1.dtype), nfe, nfe * products)


def _trace(u: Tensor, x: Tensor) -> Tensor:
    """Return ``sum_i du_i / dx_i``, ``(B,)``; samples are independent, so each row is of all Jacobians."""
    columns = u.reshape(len(x), -1).unbind(dim=1)
    total = x.new_zeros(len(x))
    for i, u_i in enumerate(columns):
        (row,) = torch.autograd.grad(u_i.sum(), x, retain_graph=True)
        total += row.reshape(len(x), -1)[:, i]
    return total


def _quadratic_forms(u: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    """Return ``v . (du/dx) v`` of every probe, ``(B, K)``."""
    products = (torch.autograd.grad(u, x, v, retain_graph=True)[0] * v for v in probes)
    return torch.stack([p.reshape(len(x), -1).sum(dim=1) for p in products], dim=1)


def _rademacher(seed: int, first: int, count: int, x: Tensor) -> Tensor:
    """Return signs for the samples of a batch from number ``first`` on, ``(count, B, ...)`` like ``x``."""
    draws = []
    for k in range(first, first + len(x)):
        # A jump of 2^128 draws: probes must be independent of data made from fs.noise with the same seed.
        bits = np.random.Philox(key=np.array([seed, k], dtype=np.uint64)).jumped()
        draws.append(np.random.Generator(bits).integers(0, 2, (count, *x.shape[1:]), dtype=np.int8))
    return torch.from_numpy(np.stack(draws, axis=1)).to(x) * 2 - 1


def _initial_log_prob(field: Field, x0: Tensor) -> Tensor:
    """Return the log-density, float64 ``(B,)``, under the Gaussian of ``field.initial_state``."""
    zeros = torch.zeros_like(x0[:1], dtype=torch.float64)
    mean = field.initial_state(zeros)
    scale = field.initial_state(zeros + 1) - mean
    z = (x0.double() - mean) / scale
    return (-z.square() / 2 - scale.log() - math.log(2 * math.pi) / 2).reshape(len(x0), -1).sum(dim=1)


def _checked(x1: Tensor, divergence: str, probes: int, seed: int, batch: int) -> tuple[int, int, int]:
    if not isinstance(x1, Tensor) or not x1.is_floating_point() or x1.ndim < 1 or x1.numel() == 0:
        got = f"{x1.dtype} of shape {tuple(x1.shape)}" if isinstance(x1, Tensor) else type(x1).__name__
        raise ValueError(
            f"log_likelihood: x1 must be a floating-point tensor of shape (B, ...), not empty, but is {got}."
        )
    if not bool(x1.isfinite().all()):
        raise ValueError("log_likelihood: x1 has NaN or infinite values; drop the samples that have them.")
    if divergence not in ("exact", "hutchinson"):
        raise ValueError(
            f"log_likelihood: divergence must be 'exact' or 'hutchinson', not {divergence!r}; exact costs "
            "one backward pass a dimension and call, hutchinson one a probe."
        )
    if divergence == "exact" and probes != 1:
        raise ValueError(
            f"log_likelihood: probes={probes} has no meaning for the exact divergence; pass "
            "divergence='hutchinson', or leave probes out."
        )
    probes, batch = check_range("log_likelihood", COUNT, probes=probes, batch=batch)
    return probes, *check_range("log_likelihood", NATURAL, seed=seed), batch


def _check_autograd(field: Field, x: Tensor) -> None:
    """Raise unless the network itself can be differentiated.

    The velocity ``A x + B m`` has a derivative, but a wrong one, even if ``m`` is detached.
    """
    x, middle = x.clone(), 0.5
    try:
        with torch.enable_grad():
            m = field.predict(x.requires_grad_(), middle)
            torch.autograd.grad(m, x, torch.ones_like(m))
    except RuntimeError as error:
        with torch.no_grad():  # raises first if the failure is not about gradients
            field.predict(x.detach(), middle)
        raise ValueError(
            "log_likelihood: autograd cannot differentiate the network by x, and the divergence is made of "
            f"that derivative ({str(error).splitlines()[0]}); take no_grad, inference_mode, detach and NumPy "
            "out of the network and of what wraps it."
        ) from error
