"""Runge-Kutta methods: order conditions, measured orders, torchdiffeq."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torchdiffeq

import fewstep as fs
from fewstep.classical import TABLEAUX, ButcherTableau, rk2, runge_kutta

METHODS = [*TABLEAUX.values(), rk2(Fraction(3, 4))]
each_method = pytest.mark.parametrize("tableau", METHODS, ids=lambda tableau: tableau.name)


@each_method
def test_the_order_conditions_hold_exactly(tableau):
    """Butcher's conditions up to the order claimed, in rational numbers."""
    a, b, c = tableau.a, tableau.b, tableau.c
    s = range(tableau.stages)

    def inner(i, f):
        return sum((a[i][j] * f(j) for j in range(i)), Fraction(0))

    conditions = {
        1: [(sum(b), 1)],
        2: [(sum(b[i] * c[i] for i in s), Fraction(1, 2))],
        3: [
            (sum(b[i] * c[i] ** 2 for i in s), Fraction(1, 3)),
            (sum(b[i] * inner(i, lambda j: c[j]) for i in s), Fraction(1, 6)),
        ],
        4: [
            (sum(b[i] * c[i] ** 3 for i in s), Fraction(1, 4)),
            (sum(b[i] * c[i] * inner(i, lambda j: c[j]) for i in s), Fraction(1, 8)),
            (sum(b[i] * inner(i, lambda j: c[j] ** 2) for i in s), Fraction(1, 12)),
            (
                sum(b[i] * inner(i, lambda j: inner(j, lambda k: c[k])) for i in s),
                Fraction(1, 24),
            ),
        ],
    }
    for order in range(1, tableau.order + 1):
        assert all(value == goal for value, goal in conditions[order])
    if tableau.order < 4:
        assert any(value != goal for value, goal in conditions[tableau.order + 1])


def slope(error, steps):
    """Order of convergence between ``steps`` and twice as many."""
    coarse, fine = error(steps), error(2 * steps)
    return float((coarse / fine).log2())


@each_method
def test_the_order_is_measured_on_a_linear_ode(tableau, linear_ode, line):
    velocity, solution = linear_ode

    def error(steps):
        return (runge_kutta(tableau, steps).sample(velocity, line) - solution(line)).square().mean().sqrt()

    assert slope(error, 24) == pytest.approx(tableau.order, abs=0.15)


@each_method
def test_the_order_is_measured_on_a_mixture(tableau, mixture_1d, line):
    network, transport = mixture_1d()
    exact = transport(line, 0.0, 1.0)

    def error(steps):
        return (runge_kutta(tableau, steps).sample(network, line) - exact).square().mean().sqrt()

    assert slope(error, 40) == pytest.approx(tableau.order, abs=0.25)


@pytest.mark.parametrize("tableau", list(TABLEAUX.values()), ids=list(TABLEAUX))
def test_the_order_is_measured_against_the_reference(tableau):
    """In the plane, where no closed form helps."""
    field = fs.models.random_mixture(2, 3, std=0.5).field()
    x0 = fs.noise(8, (2,), dtype=torch.float64)
    exact = fs.reference.solve(field, x0, rtol=1e-10, atol=1e-10).states[-1]

    def error(steps):
        return (runge_kutta(tableau, steps).sample(field, x0) - exact).square().mean().sqrt()

    assert slope(error, 32) == pytest.approx(tableau.order, abs=0.3)


def classical_rk4(velocity, x0, steps):
    """The textbook's RK4, as torchdiffeq's method of that name is the 3/8 rule."""
    x, h = x0, 1 / steps
    for i in range(steps):
        t = torch.tensor(i * h, dtype=x0.dtype)
        k1 = velocity(x, t)
        k2 = velocity(x + h / 2 * k1, t + h / 2)
        k3 = velocity(x + h / 2 * k2, t + h / 2)
        k4 = velocity(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def test_rk4_is_the_one_of_the_textbook(linear_ode, line):
    velocity, _ = linear_ode
    expected = classical_rk4(velocity, line, 5)
    torch.testing.assert_close(fs.classical.rk4(5).sample(velocity, line), expected, rtol=1e-13, atol=1e-13)


THREE_EIGHTHS = ButcherTableau(
    "3/8",
    4,
    ((), (Fraction(1, 3),), (Fraction(-1, 3), Fraction(1)), (Fraction(1), Fraction(-1), Fraction(1))),
    (Fraction(1, 8), Fraction(3, 8), Fraction(3, 8), Fraction(1, 8)),
)


@pytest.mark.parametrize(
    ("tableau", "method"),
    [
        (TABLEAUX["euler"], "euler"),
        (TABLEAUX["midpoint"], "midpoint"),
        (TABLEAUX["heun"], "heun2"),
        (THREE_EIGHTHS, "rk4"),
    ],
    ids=["euler", "midpoint", "heun", "3/8"],
)
@pytest.mark.parametrize("grid", [(0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.1, 0.4, 0.45, 1.0)])
def test_torchdiffeq_agrees(tableau, method, grid, linear_ode, line):
    velocity, _ = linear_ode
    times = torch.tensor(grid, dtype=torch.float64)
    theirs = torchdiffeq.odeint(lambda t, x: velocity(x, t), line, times, method=method)
    ours = runge_kutta(tableau, grid=grid).sample(velocity, line, trajectory=True)
    torch.testing.assert_close(ours.states, theirs, rtol=1e-12, atol=1e-12)


def test_midpoint_stays_off_the_end_and_heun_does_not():
    assert max(fs.classical.midpoint(5).times) == pytest.approx(0.9)
    assert max(fs.classical.heun(5).times) == 1


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (((), (Fraction(1),)), (Fraction(1),), "strictly lower triangular"),
        (((),), (Fraction(1, 2),), "weights b must sum to 1, not 1/2"),
    ],
)
def test_a_bad_tableau_is_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        ButcherTableau("bad", 1, a, b)
