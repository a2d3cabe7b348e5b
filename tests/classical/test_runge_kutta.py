"""Runge-Kutta methods: order conditions, measured orders, torchdiffeq."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
import torchdiffeq

import fewstep as fs
from fewstep.classical import TABLEAUX, ButcherTableau, rk2, runge_kutta

METHODS = [*TABLEAUX.values(), rk2(Fraction(3, 4))]
each_method = pytest.mark.parametrize("tableau", METHODS, ids=lambda tableau: tableau.name)


def trees(nodes):
    """Rooted trees with that many nodes, as sorted tuples of subtrees."""
    if nodes == 1:
        return {()}
    grown = set()
    for smaller in range(1, nodes):
        for branch in trees(smaller):
            grown |= {tuple(sorted((*tree, branch))) for tree in trees(nodes - smaller)}
    return grown


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    """The product of the sizes of all subtrees."""
    return size(tree) * math.prod(map(density, tree))


def elementary_weight(tableau, tree):
    """sum_i b_i prod over branches of sum_j a_ij (...)."""

    def at(i, branches):
        return math.prod(
            sum((w * at(j, branch) for j, w in enumerate(tableau.a[i])), Fraction(0)) for branch in branches
        )

    return sum((w * at(i, tree) for i, w in enumerate(tableau.b)), Fraction(0))


def test_there_are_as_many_trees_as_conditions():
    assert [len(trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@each_method
def test_the_order_conditions_hold_exactly(tableau):
    """Butcher's conditions, one a rooted tree, up to the order claimed and no further."""
    holds = [
        all(elementary_weight(tableau, tree) == Fraction(1, density(tree)) for tree in trees(order))
        for order in range(1, tableau.order + 2)
    ]
    assert holds == [True] * tableau.order + [False]


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

    # Order 5 comes close to rounding before it is reached from above.
    assert slope(error, 8 * tableau.order) == pytest.approx(
        tableau.order, abs=0.25 if tableau.order < 5 else 1
    )


@pytest.fixture(scope="module")
def plane():
    """A field in the plane, where no closed form helps, noises, and the reference's samples."""
    field = fs.models.random_mixture(2, 3, std=0.5).field()
    x0 = fs.noise(8, (2,), dtype=torch.float64)
    return field, x0, fs.reference.solve(field, x0, rtol=1e-12, atol=1e-12).states[-1]


@pytest.mark.parametrize("tableau", list(TABLEAUX.values()), ids=list(TABLEAUX))
def test_the_order_is_measured_against_the_reference(tableau, plane):
    field, x0, exact = plane

    def error(steps):
        return (runge_kutta(tableau, steps).sample(field, x0) - exact).square().mean().sqrt()

    assert slope(error, 13 * tableau.order) == pytest.approx(
        tableau.order, abs=0.3 if tableau.order < 5 else 1
    )


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


@pytest.mark.parametrize(
    ("tableau", "method"),
    [
        ("euler", "euler"),
        ("midpoint", "midpoint"),
        ("heun", "heun2"),
        ("heun3", "heun3"),
        ("three_eighths", "rk4"),
    ],
)
@pytest.mark.parametrize("grid", [(0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.1, 0.4, 0.45, 1.0)])
def test_torchdiffeq_agrees(tableau, method, grid, linear_ode, line):
    velocity, _ = linear_ode
    times = torch.tensor(grid, dtype=torch.float64)
    theirs = torchdiffeq.odeint(lambda t, x: velocity(x, t), line, times, method=method)
    ours = runge_kutta(TABLEAUX[tableau], grid=grid).sample(velocity, line, trajectory=True)
    torch.testing.assert_close(ours.states, theirs, rtol=1e-12, atol=1e-12)


#: Tableaux with a function of their own; :func:`runge_kutta` serves all.
NAMED = [name for name in TABLEAUX if name in fs.classical.__all__]


def test_no_function_is_lost():
    assert len(NAMED) == 11


@pytest.mark.parametrize("name", NAMED)
def test_a_tableau_has_a_function_of_its_name(name):
    solver = getattr(fs.classical, name)(3)
    assert solver.name == name
    assert solver.nfe == 3 * TABLEAUX[name].stages
    assert solver.table.D.equal(runge_kutta(TABLEAUX[name], 3).table.D)


def test_bogacki_and_shampine_stay_off_the_end_and_others_do_not():
    ends = {name: max(getattr(fs.classical, name)(2).times) == 1 for name in NAMED}
    off = {"euler", "midpoint", "ralston", "heun3", "bogacki_shampine"}
    assert ends == {name: name not in off for name in NAMED}


def test_heun_with_a_last_step_of_euler():
    solver, grid = fs.classical.heun(grid=(0.0, 0.4, 1.0), euler_last=True), (0.0, 0.4)
    assert solver.nfe == 3
    assert solver.D[:2] == fs.classical.heun(grid=grid).D
    assert solver.D[2] == (0, 0, 0.6)


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
