"""Adams-Bashforth: textbook weights, polynomials, measured orders."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq

import fewstep as fs
from fewstep.classical import adams_bashforth

TEXTBOOK = {
    2: [-1 / 2, 3 / 2],
    3: [5 / 12, -16 / 12, 23 / 12],
    4: [-9 / 24, 37 / 24, -59 / 24, 55 / 24],
}
each_order = pytest.mark.parametrize("order", [2, 3, 4])


@each_order
def test_uniform_steps_have_the_weights_of_the_textbook(order):
    solver = adams_bashforth(order, 8)
    assert solver.nfe == 8
    for row in solver.D[order - 1 :]:
        assert [8 * w for w in row[-order:]] == pytest.approx(TEXTBOOK[order], abs=1e-12)
        assert not any(row[:-order])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_polynomials_are_integrated_exactly_on_any_grid(order):
    """u = t^(order - 1) has the integral 1 / order; the start by Runge-Kutta is exact for it too."""
    grid = [0.0, 0.07, 0.3, 0.35, 0.6, 0.95, 1.0]
    solver = adams_bashforth(order, grid=grid, start="runge_kutta")
    x1 = solver.sample(lambda x, t: (t ** (order - 1))[:, None] + 0 * x, torch.zeros(1, 1).double())
    assert x1.item() == pytest.approx(1 / order, abs=1e-13)


@each_order
def test_every_row_with_full_history_integrates_polynomials(order):
    grid = [0.0, 0.07, 0.3, 0.35, 0.6, 0.95, 1.0]
    solver = adams_bashforth(order, grid=grid)
    for i in range(order - 1, 6):
        for power in range(order):
            weighted = sum(w * t**power for w, t in zip(solver.D[i], grid, strict=False))
            exact = (grid[i + 1] ** (power + 1) - grid[i] ** (power + 1)) / (power + 1)
            assert weighted == pytest.approx(exact, abs=1e-13)


def slope(solver, velocity, x0, exact, steps):
    coarse, fine = ((solver(n).sample(velocity, x0) - exact).norm() for n in (steps, 2 * steps))
    return float((coarse / fine).log2())


@each_order
def test_the_order_is_nominal_after_a_runge_kutta_start(order, linear_ode, mixture_1d, line):
    velocity, solution = linear_ode
    network, transport = mixture_1d()

    def solver(n):
        return adams_bashforth(order, n, start="runge_kutta")

    assert slope(solver, velocity, line, solution(line), 60) == pytest.approx(order, abs=0.25)
    exact = transport(line, 0.0, 1.0)
    assert slope(solver, network, line, exact, 80) == pytest.approx(order, abs=0.4)


@each_order
def test_the_order_is_two_after_a_low_order_start(order, linear_ode, line):
    velocity, solution = linear_ode
    measured = slope(lambda n: adams_bashforth(order, n), velocity, line, solution(line), 60)
    assert measured == pytest.approx(2, abs=0.2)


def test_torchdiffeq_agrees_where_starts_do(line):
    """Its explicit_adams with max_order 4 is of order 3 and starts with the 3/8 rule, which on a linear
    autonomous ODE is the classical method."""
    grid = torch.linspace(0, 1, 9, dtype=torch.float64)
    options = {"max_order": 4}
    theirs = torchdiffeq.odeint(lambda t, x: -1.5 * x, line, grid, method="explicit_adams", options=options)
    solver = adams_bashforth(3, 8, start="runge_kutta")
    ours = solver.sample(lambda x, t: -1.5 * x, line)
    torch.testing.assert_close(ours, theirs[-1], rtol=1e-12, atol=1e-12)


def test_order_one_is_euler():
    assert adams_bashforth(1, 5).D == fs.classical.euler(5).D


@pytest.mark.parametrize(("order", "nfe"), [(2, 2 + 7), (3, 8 + 6), (4, 12 + 5)])
def test_a_runge_kutta_start_costs_what_it_says(order, nfe):
    assert adams_bashforth(order, 8, start="runge_kutta").nfe == nfe


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 5}, "order must be 1, 2, 3 or 4, not 5"),
        ({"order": 0}, "order must be 1, 2, 3 or 4, not 0"),
        ({"order": 2, "start": "euler"}, "start must be 'lower_order' or 'runge_kutta', not 'euler'"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        adams_bashforth(steps=4, **options)
