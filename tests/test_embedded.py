"""Embedded pairs: orders, torchdiffeq's coefficients, its solutions, and the calls that are counted."""

from __future__ import annotations

import math

import pytest
import torch
from torchdiffeq import odeint
from torchdiffeq._impl.odeint import SOLVERS

import fewstep as fs
from fewstep._embedded import PAIRS

each_pair = pytest.mark.parametrize("name", PAIRS)


def step(pair, h):
    """One step of ``x' = -(1 + t) x^2`` from 1, and its error estimate; the solution is solution(t)."""
    x, slopes = 1.0, []
    for c, row in zip(pair.c, pair.a, strict=True):
        x = 1.0 + h * sum(w * u for w, u in zip(row, slopes, strict=True))
        slopes.append(-(1 + c * h) * x**2)
    return x, h * sum(w * u for w, u in zip(pair.error, slopes, strict=True))


def solution(t):
    return 1 / (1 + t + t**2 / 2)


@each_pair
def test_a_step_and_its_error_estimate_have_the_orders_of_the_pair(name):
    pair, h = PAIRS[name], 0.4 if name == "dopri8" else 0.05
    (x, estimate), (half, half_estimate) = step(pair, h), step(pair, h / 2)
    order = math.log2(abs(x - solution(h)) / abs(half - solution(h / 2)))
    assert order == pytest.approx(pair.order + 1, abs=0.25)
    assert math.log2(abs(estimate / half_estimate)) > pair.order - 0.05


@each_pair
def test_the_coefficients_are_torchdiffeqs(name):
    pair, theirs = PAIRS[name], SOLVERS[name].tableau
    stages, weights = len(theirs.beta) + 1, theirs.c_sol.tolist()
    assert pair.order == SOLVERS[name].order
    assert pair.c[1:stages] == pytest.approx(theirs.alpha.tolist(), rel=1e-15)
    for row, their_row in zip(pair.a[1:stages], theirs.beta, strict=True):
        assert row == pytest.approx(their_row.tolist(), rel=1e-14, abs=1e-17)
    assert [*pair.a[-1], 0.0][: len(weights)] == pytest.approx(weights, rel=1e-14, abs=1e-17)
    # For dopri5 torchdiffeq takes Shampine's second method, two thirds of the way to the published one.
    factor = {"dopri5": 2 / 3, "adaptive_heun": -1}.get(name, 1)
    their_error = [w / factor for w in theirs.c_error.tolist()]
    assert pair.error[: len(weights)] == pytest.approx(their_error, rel=1e-9, abs=1e-15)
    assert not any(pair.error[len(weights) :])


@each_pair
def test_it_solves_a_mixture_like_torchdiffeq(name, mixture_1d, line):
    network, transport = mixture_1d()
    field = network.field()
    # The estimate of fehlberg2 has small weights.
    tolerance, atol = {"fehlberg2": (1e-7, 1e-4), "adaptive_heun": (1e-5, 1e-4)}.get(name, (1e-6, 2e-5))
    result = fs.Adaptive(tolerance, tolerance, method=name, max_nfe=20_000).sample(field, line)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = odeint(field.time_first(), line, times, rtol=tolerance / 10, atol=tolerance / 10, method=name)[
        -1
    ]
    torch.testing.assert_close(result.x1, theirs, rtol=0, atol=atol)
    torch.testing.assert_close(result.x1, transport(line, 0.0, 1.0), rtol=0, atol=atol)
    steps = result.accepted + result.rejected
    assert torch.equal(result.nfe, 2 + PAIRS[name].calls * steps)


@each_pair
def test_calls_are_counted_as_they_are_made(name, mixture_1d, line):
    network, _ = mixture_1d()
    calls = 0

    def velocity(x, t):
        nonlocal calls
        calls += 1
        return network.field()(x, t)

    result = fs.Adaptive(1e-4, 1e-4, method=name, max_nfe=20_000).sample(fs.Field(velocity), line[:1])
    assert calls == int(result.nfe)


@pytest.mark.parametrize(("name", "order"), [(name, pair.order) for name, pair in PAIRS.items()])
def test_steps_grow_with_the_tolerance_as_the_order_says(name, order, mixture_1d, line):
    """A hundredth of the tolerance takes ``100^(1 / order)`` times the steps."""
    field, tolerance = mixture_1d()[0].field(), {"adaptive_heun": 1e-3, "fehlberg2": 1e-5}.get(name, 1e-7)
    few, many = (
        fs.Adaptive(tol, tol, method=name, max_nfe=20_000).sample(field, line).accepted.double().mean()
        for tol in (tolerance, tolerance / 100)
    )
    assert float(many / few) == pytest.approx(100 ** (1 / order), rel=0.2)


def test_another_method_is_refused_with_a_guess():
    with pytest.raises(ValueError, match=r"Adaptive: method must be one of dopri5, dopri8, .* not 'rk45'"):
        fs.Adaptive(method="rk45")
    with pytest.raises(ValueError, match=r"did you mean 'bosh3'"):
        fs.Adaptive(method="bosch3")
