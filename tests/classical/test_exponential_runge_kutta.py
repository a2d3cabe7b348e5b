"""Exponential integrators in general: exact where they should be, and of the orders they claim."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from fewstep.classical import (
    EXPONENTIAL_TABLEAUX,
    ExponentialTableau,
    ddim,
    exponential_adams,
    exponential_runge_kutta,
)
from fewstep.classical._exponential_builder import exponential_integrals
from fewstep.schedules import VE, VP, CondOT, Cosine

each_schedule = pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE(5.0)], ids=repr)
each_prediction = pytest.mark.parametrize("prediction", ["data", "noise"])


@pytest.mark.parametrize("h", [1e-6, 0.1, 1.0, 12.0])
@pytest.mark.parametrize("nodes", [[0.0], [0.0, -0.7], [0.0, -0.7, -1.9, 1.0], [1.0, 1.5, 2.5]])
def test_polynomials_are_integrated_exactly(nodes, h):
    """int_0^h exp(-u) (u / h)^k du by quadrature."""
    u, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(60))
    u, w = h * (u + 1) / 2, h * w / 2
    at = h * torch.tensor(nodes, dtype=torch.float64)
    weights = exponential_integrals(at, torch.tensor(h, dtype=torch.float64))
    for power in range(len(nodes)):
        exact = (w * torch.exp(-u) * (u / h) ** power).sum()
        assert float(weights @ (at / h) ** power) == pytest.approx(float(exact), rel=1e-10)


def test_a_step_of_infinite_length_has_factorials_for_moments():
    nodes = torch.tensor([0.0, -0.5, -1.5, -2.0], dtype=torch.float64)
    weights = exponential_integrals(nodes, torch.tensor(torch.inf, dtype=torch.float64))
    assert [float(weights @ nodes**k) for k in range(4)] == pytest.approx([1, 1, 2, 6])


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@each_prediction
@pytest.mark.parametrize("name", EXPONENTIAL_TABLEAUX)
def test_the_order_is_measured_on_a_mixture(schedule, prediction, name, measured_order):
    tableau = EXPONENTIAL_TABLEAUX[name]

    def build(grid):
        return exponential_runge_kutta(tableau, schedule=schedule, grid=grid, prediction=prediction)

    assert measured_order(build, schedule) == pytest.approx(tableau.order, abs=0.35)


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@each_prediction
@pytest.mark.parametrize(("order", "measured"), [(1, 1), (2, 2), (5, 2)])
def test_the_order_of_adams_is_measured_on_a_mixture(schedule, prediction, order, measured, measured_order):
    """High orders are held back by their first step, of order 1."""

    def build(grid):
        return exponential_adams(order, schedule=schedule, grid=grid, prediction=prediction)

    assert measured_order(build, schedule) > measured - 0.3


@each_schedule
@each_prediction
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_one_row_with_exact_history_has_its_local_order(schedule, prediction, order, local_order):
    def build(grid):
        return exponential_adams(order, schedule=schedule, grid=grid, prediction=prediction)

    assert local_order(build, schedule) == pytest.approx(order + 1, abs=0.35)


@each_schedule
@each_prediction
def test_from_pure_noise_to_pure_data_all_is_finite(schedule, prediction):
    infinite = int(schedule.log_snr(torch.tensor([0.0, 1.0])).isinf().sum())
    for tableau in EXPONENTIAL_TABLEAUX.values():
        solver = exponential_runge_kutta(tableau, 4, schedule=schedule, prediction=prediction)
        assert solver.nfe == 4 + (4 - infinite) * (len(tableau.c) - 1)
    assert exponential_adams(4, 6, schedule=schedule, prediction=prediction).nfe == 6


@each_schedule
@each_prediction
def test_order_one_is_ddim(schedule, prediction):
    expected = ddim(5, schedule=schedule)
    for solver in (
        exponential_adams(1, 5, schedule=schedule, prediction=prediction),
        exponential_runge_kutta(EXPONENTIAL_TABLEAUX["euler"], 5, schedule=schedule, prediction=prediction),
    ):
        for row, other in zip([*solver.C, *solver.D], [*expected.C, *expected.D], strict=True):
            assert row == pytest.approx(other, abs=1e-10)


@pytest.mark.parametrize(
    ("c", "through"),
    [
        ((Fraction(1, 2),), ((0,),)),
        ((Fraction(0), Fraction(3, 2)), ((0,), (0, 1))),
        ((Fraction(0), Fraction(1, 2)), ((0,), (0, 2))),
        ((Fraction(0), Fraction(0)), ((0,), (0, 1))),
        ((Fraction(0), Fraction(1, 2)), ((0,),)),
    ],
)
def test_a_bad_tableau_is_refused(c, through):
    with pytest.raises(ValueError, match="c must start at 0 and stay in"):
        ExponentialTableau("bad", 1, c, through)


@pytest.mark.parametrize("order", [0, 1.5, True])
def test_a_bad_order_is_named(order):
    with pytest.raises(ValueError, match="order must be a whole number of at least 1"):
        exponential_adams(order, 4)
