"""One prediction turned into another, against data and noise that are known."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from fewstep._predictions import PREDICTIONS, check_prediction, conversion
from fewstep.schedules import VE, VP, CondOT, Cosine, Polynomial

SCHEDULES = [CondOT(), Polynomial(2.0), VP(), Cosine(), VE(5.0)]
TIMES = torch.linspace(0.1, 0.9, 17, dtype=torch.float64)

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def draw(schedule):
    """Random data and noise, the state they make, and every prediction of it by definition."""
    generator = torch.Generator().manual_seed(0)
    d, e = torch.randn(2, 17, dtype=torch.float64, generator=generator)
    alpha, sigma, d_alpha, d_sigma = schedule(TIMES)
    known = {
        "velocity": d_alpha * d + d_sigma * e,
        "data": d,
        "noise": e,
        "v": alpha * e - sigma * d,
    }
    return alpha * d + sigma * e, known


@each_schedule
@pytest.mark.parametrize(("wanted", "given"), list(product(PREDICTIONS, PREDICTIONS)))
def test_every_pair_recovers_what_is_wanted(schedule, wanted, given):
    x, known = draw(schedule)
    A, B = conversion(schedule(TIMES), wanted, given)
    scale = (A * x).abs() + (B * known[given]).abs() + 1
    error = (A * x + B * known[given] - known[wanted]) / scale
    assert float(error.abs().max()) < 1e-12


@each_schedule
@pytest.mark.parametrize("given", PREDICTIONS)
def test_the_velocity_formulas_of_the_literature(schedule, given):
    a, s, da, ds = schedule(TIMES)
    A, B = {
        "velocity": (0 * a, 0 * a + 1),
        "data": (ds / s, da - a * ds / s),
        "noise": (da / a, ds - s * da / a),
        "v": ((da * a + ds * s) / (a**2 + s**2), (ds * a - da * s) / (a**2 + s**2)),
    }[given]
    torch.testing.assert_close(conversion(schedule(TIMES), "velocity", given), (A, B), rtol=1e-11, atol=1e-11)


def test_an_end_that_leaves_the_velocity_undefined_is_not_finite():
    ends = CondOT()(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert conversion(ends, "velocity", "noise")[1].isfinite().tolist() == [False, True]
    assert conversion(ends, "velocity", "data")[1].isfinite().tolist() == [True, False]
    assert all(c.isfinite().all() for c in conversion(ends, "data", "velocity"))


def test_an_unknown_prediction_is_named():
    with pytest.raises(ValueError, match="must be one of velocity, noise, data, v, not 'epsilon'"):
        check_prediction("epsilon")
