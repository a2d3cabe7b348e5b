"""iPNDM: weights of Adams and Bashforth whatever the grid."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.classical import ipndm, lms
from fewstep.schedules import VE, VP, CondOT

WEIGHTS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_ddim_with_a_combined_noise(order, line):
    """x' = alpha' (x - sigma e) / alpha + sigma' e, with e from the textbook's weights."""
    schedule, grid = VP(), [0.1, 0.2, 0.45, 0.5, 0.8, 0.9]
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise")
    x, noises = line * schedule(0.0).sigma, []
    for i in range(5):
        noises.insert(0, network(x, torch.tensor(grid[i], dtype=torch.float64)))
        weights = WEIGHTS[min(i + 1, order) - 1]
        e = sum(w * noise for w, noise in zip(weights, noises, strict=False))
        (alpha, sigma), (new_alpha, new_sigma) = schedule(grid[i])[:2], schedule(grid[i + 1])[:2]
        x = new_alpha * (x - sigma * e) / alpha + new_sigma * e
    solver = ipndm(order, schedule=schedule, grid=grid)
    torch.testing.assert_close(solver.sample(network.field(), line), x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_on_equal_steps_in_sigma_it_is_lms(order):
    schedule = VE(9.0, rho=1.0)
    solver, other = ipndm(order, 7, schedule=schedule), lms(order, 7, schedule=schedule)
    for row, expected in zip([*solver.C, *solver.D], [*other.C, *other.D], strict=True):
        assert row == pytest.approx(expected, abs=1e-10)


def test_it_starts_in_pure_noise():
    solver = ipndm(4, 5, schedule=CondOT())
    assert (solver.nfe, solver.name) == (5, "ipndm")
    assert solver.D[0] == pytest.approx((0.2,))


def test_an_unknown_order_is_named():
    with pytest.raises(ValueError, match="order must be 1, 2, 3 or 4, not 5"):
        ipndm(5, 4)
