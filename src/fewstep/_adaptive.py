"""Adaptive sampling with a step size and a call count per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ._device import widest
from ._dopri5 import CallLimitError, answers_differ
from ._embedded import PAIRS, EmbeddedPair
from ._names import check_name
from ._network import state_type
from ._path import check_noise
from ._ranges import COUNT, POSITIVE, check_fields
from .field import Field

__all__ = ["Adaptive", "AdaptiveSamples"]

#: Network calls before the first step: the velocity at the noise, and one to choose the first step size.
_OPENING_CALLS = 2
#: Factor of the step size given by the error estimate, and least and largest ratio of a step to the last one.
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
#: A step goes to the end if this many times its length reaches the end.
_STRETCH = 1.01
#: Steps below this do not move float64 time.
_LEAST_STEP = 1e-15


class AdaptiveSamples(NamedTuple):
    """Samples of an adaptive solver.

    Shape:
        ``x1``: like the noise, ``(B, ...)``; ``nfe``: network calls of each sample, ``(B,)``, on the CPU
        like ``accepted`` and ``rejected``, the counts of its steps: with ``dopri5``
        ``nfe = 2 + 6 (accepted + rejected)``.
    """

    x1: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Adaptive:
    """An embedded Runge-Kutta pair from ``t = 0`` to exactly ``t = 1``, sample by sample.

    Step size, error control and call count are separate for each sample, so neither its values nor its calls
    depend on the rest of the batch (up to the rounding of batched matrix products); a sample that has reached
    ``t = 1`` is not evaluated again. :func:`fewstep.reference.solve` has one step size for the whole batch.

    Args:
        rtol: relative tolerance of the local error, in the root mean square over the dimensions.
        atol: absolute tolerance of the local error.
        max_nfe: most network calls per sample.
        dtype: type of the integrated state, by default that of the noise, float32 at least; float64
            avoids rounding of the state, while the field still gets the type of the noise.
        method: the pair, by its name in torchdiffeq: ``dopri5`` (6 calls a step), ``dopri8`` (13), for low
            tolerances, ``bosh3`` (3), ``fehlberg2`` (3) or ``adaptive_heun`` (2).

    Raises:
        ValueError: when a tolerance is not positive, ``max_nfe`` not a whole number of at least 1, or the
            method is not known.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 2000
    dtype: torch.dtype | None = None
    method: str = "dopri5"
    name: ClassVar[str] = "adaptive"

    def __post_init__(self) -> None:
        check_fields("Adaptive", self, rtol=POSITIVE, atol=POSITIVE, max_nfe=COUNT)
        check_name("Adaptive: method", self.method, PAIRS)

    @property
    def _pair(self) -> EmbeddedPair:
        return PAIRS[self.method]

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify the solver."""
        dtype = None if self.dtype is None else str(self.dtype)
        facts = {"rtol": self.rtol, "atol": self.atol, "state_dtype": dtype}
        return {"name": self.name, "method": self.method, **facts}

    def sample(
        self,
        field: Field | Callable[..., Tensor],
        x0: Tensor,
        *,
        callback: Callable[[Tensor, Tensor, Tensor, Tensor], None] | None = None,
        conditions: Mapping[str, Any] | None = None,
        per_sample: Mapping[str, Any] | None = None,
    ) -> AdaptiveSamples:
        """Map noise to samples, each with as many calls as it needs.

        Args:
            field: a :class:`~fewstep.Field`, or a plain callable ``velocity(x, t)`` that takes times of
                shape ``(B,)``.
            x0: standard normal noise, ``(B, ...)``.
            callback: called as ``callback(index, t, x, velocity)`` with the points reached by the samples
                ``index``, from ``t = 0`` on; ``index`` and ``t`` are ``(n,)`` on the CPU. It must not
                change them.
            conditions: keyword arguments of the network that all samples share.
            per_sample: those with one row per sample, or one row for all; see :meth:`Field.bind`.

        Raises:
            ValueError: when ``x0`` is not a batch of noise, the network takes one time for the batch, or a
                condition has a wrong number of rows.
            CallLimitError: when ``max_nfe`` calls are not enough for every sample.
            FloatingPointError: when the network returns NaN or infinity, or a step size underflows.
        """
        field = field if isinstance(field, Field) else Field(field)
        check_noise(x0)
        if field.time_shape == "scalar":
            raise ValueError(
                "Adaptive: every sample has a time of its own, but this field's network takes one time for "
                "the batch (time_shape='scalar'); use fs.reference.solve, which has one step size."
            )
        with torch.no_grad():
            return self._solve(field.bind(conditions, per_sample, len(x0)), x0, callback)

    def _solve(self, field: Field, x0: Tensor, callback: Callable[..., None] | None) -> AdaptiveSamples:
        B, part, seen = len(x0), field, state_type(x0.dtype)
        alive = torch.arange(B)  # indices of the samples before t = 1

        # Times and steps are float64 on the CPU; a step sends them to the device, and reads its error norms.
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return part(x.to(seen), _moved(t, x)).to(x.dtype)

        x = field.initial_state(x0).to(state_type(self.dtype or seen))
        t = torch.zeros(B, dtype=torch.float64)
        u = velocity(x, t)
        if callback is not None:
            callback(alive, t, x, u)
        h = self._first_step(velocity, x, t, u)
        calls = _OPENING_CALLS
        result = AdaptiveSamples(torch.empty_like(x0), *torch.zeros(3, B, dtype=torch.int64))

        while len(alive):
            if calls + self._pair.calls > self.max_nfe:
                reason = answers_differ(partial(velocity, x, t)) or "raise max_nfe, or loosen the tolerances"
                raise CallLimitError(
                    f"adaptive: {self.max_nfe} calls did not take {len(alive)} of {B} samples to t = 1 "
                    f"(the slowest stopped at t = {t.min():.4f}) with rtol={self.rtol:g}, "
                    f"atol={self.atol:g}; {reason}."
                )
            last = t + _STRETCH * h >= 1
            h = torch.where(last, 1 - t, h)
            goal = torch.where(last, 1.0, t + h)
            x_new, u_new, error = self._step(velocity, x, t, h, goal, u)
            calls += self._pair.calls
            self._check(error, t, h, B, partial(velocity, x, t))

            good = error <= 1
            result.accepted[alive] += good
            result.rejected[alive] += ~good
            accepted = _broadcast(good.to(x.device), x)
            x, u = torch.where(accepted, x_new, x), torch.where(accepted, u_new, u)
            t = torch.where(good, goal, t)
            h = h * (_SAFETY * error ** (-1 / self._pair.order)).clamp(_SHRINK, _GROW)
            if callback is not None and bool(good.any()):
                callback(alive[good], t[good], x[good], u[good])

            arrived = t == 1
            if bool(arrived.any()):
                result.x1[alive[arrived]] = x[arrived].to(x0.dtype)
                result.nfe[alive[arrived]] = calls
                alive, t, h, x, u = (v[~arrived] for v in (alive, t, h, x, u))
                part = field.rows(alive)
        return result

    def _step(
        self,
        velocity: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        t: Tensor,
        h: Tensor,
        goal: Tensor,
        u: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new state, its velocity, and the error of each sample in units of the tolerance."""
        pair = self._pair
        times = [goal if c == 1 else t + c * h for c in pair.c[1:]]
        h, *times = _moved(torch.stack([h, *times]), x)
        step, stages, z = _broadcast(h.to(x.dtype), x), [u], x
        for time, weights in zip(times, pair.a[1:], strict=True):
            z = x + step * _combine(weights, stages)
            stages.append(velocity(z, time))
        # The last stage is at the new state.
        error = step * _combine(pair.error, stages)
        return z, stages[-1], self._norm(error, torch.maximum(x.abs(), z.abs()))

    def _first_step(
        self, velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, u: Tensor
    ) -> Tensor:
        """Choose the first step: Hairer, Nørsett and Wanner, *Solving ODEs I*, section II.4; one call."""
        size = x.abs()
        d0, d1 = self._norm(x, size), self._norm(u, size)
        guess = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp(max=1.0)
        bend = velocity(x + _broadcast(guess.to(x), x) * u, guess) - u
        steepest = torch.maximum(d1, self._norm(bend, size) / guess)
        fine = (0.01 / steepest) ** (1 / self._pair.order)
        h = torch.where(steepest <= 1e-15, (1e-3 * guess).clamp(min=1e-6), fine)
        return torch.minimum(100 * guess, h).clamp(max=1.0)

    def _norm(self, x: Tensor, size: Tensor) -> Tensor:
        """Return the RMS of ``x`` over the tolerance for states of that size; ``(B,)`` on the CPU."""
        return (x / (self.atol + self.rtol * size)).flatten(1).square().mean(dim=1).sqrt().cpu().double()

    def _check(self, error: Tensor, t: Tensor, h: Tensor, B: int, again: Callable[[], Tensor]) -> None:
        wrong = ~error.isfinite()
        if bool(wrong.any()):
            raise FloatingPointError(
                f"adaptive: the network returned NaN or infinity for {int(wrong.sum())} of {B} samples, the "
                f"first of them after t = {t[wrong].min():.6g}; look at the model there."
            )
        stuck = (h < _LEAST_STEP) & (error > 1)
        if bool(stuck.any()):
            loosen = f"loosen rtol={self.rtol:g}, atol={self.atol:g}, or pass dtype=torch.float64"
            raise FloatingPointError(
                f"adaptive: the step size of {int(stuck.sum())} of {B} samples fell to nothing at t = "
                f"{t[stuck].min():.6g}; {answers_differ(again) or loosen}."
            )


def _moved(t: Tensor, x: Tensor) -> Tensor:
    """Return times on the device of ``x``."""
    return t.to(x.device, widest(x.device))


def _broadcast(v: Tensor, x: Tensor) -> Tensor:
    """Return one value per sample in a shape to multiply ``x`` by."""
    return v.reshape(-1, *[1] * (x.ndim - 1))


def _combine(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    terms = [(w, u) for w, u in zip(weights, stages, strict=True) if w]
    total = terms[0][0] * terms[0][1]
    for w, u in terms[1:]:
        total = torch.add(total, u, alpha=w)
    return total
