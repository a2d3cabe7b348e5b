import math

import pytest
import torch

import fewstep as fs
from fewstep.schedules import VE, VP, CondOT

#: Where the Taylor polynomial of exp(-z) to z^4 is 1 again: the real root of z^3 - 4 z^2 + 12 z - 24.
RK4_LIMIT = 2.785293563405282


def test_the_limit_of_rk4_is_that_of_its_polynomial():
    z = RK4_LIMIT
    assert z**3 - 4 * z**2 + 12 * z - 24 == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("solver", "limit"),
    [
        *((fs.classical.euler(n), 2 * n) for n in (1, 5, 40)),
        *((fs.classical.midpoint(n), 2 * n) for n in (1, 7)),
        (fs.classical.heun(4), 8),
        *((fs.classical.rk4(n), RK4_LIMIT * n) for n in (1, 6)),
        (
            fs.classical.euler(grid=[0, 0.1, 0.6, 0.75]),
            12,
        ),  # (z / 10 - 1) (z / 2 - 1) = 1 at the second point
        (fs.classical.ddim(4), 8),  # Euler, as a table of data predictions
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_real_limits_have_closed_forms(solver, limit):
    assert fs.inspect(solver).stability.real_limit == pytest.approx(limit, rel=1e-6)


def test_chebyshevs_polynomial_reaches_twice_the_square_of_its_degree():
    """T_3(1 + z / 9) = 1 + z + 4 z^2 / 27 + 4 z^3 / 729 as a table of three calls."""
    c3, c2 = 4 / 729, 4 / 27
    solver = fs.Solver(
        (0.0, 0.1, 0.2),
        ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
        ((c3 / c2,), (0.0, c2), (0.0, 0.0, 1.0)),
        (0, 3),
    )
    assert fs.inspect(solver).stability.real_limit == pytest.approx(18, rel=1e-3)


def test_a_solver_that_ignores_the_slopes_has_no_limit():
    solver = fs.Solver((0.0,), ((1.0,),), ((0.0,),), (0, 1))
    assert fs.inspect(solver).stability.real_limit is None


def test_amplification_is_that_of_sampling():
    solver = fs.classical.dpmpp("2M", 5, schedule=CondOT()).to("velocity")
    found = fs.inspect(solver).stability
    for rate, row, exact in zip(found.rates, found.amplification, found.exact, strict=True):
        path = solver.sample(
            lambda x, t, rate=rate: rate * x, torch.ones(1, 1, dtype=torch.float64), trajectory=True
        )
        assert row == pytest.approx(path.states.flatten().tolist(), rel=1e-9)
        assert exact == pytest.approx([math.exp(rate * t) for t in path.times])
        assert found.times == tuple(path.times.tolist())


def test_the_gain_of_an_error_in_a_state_of_euler():
    found = fs.inspect(fs.classical.euler(4)).stability
    for rate, row in zip((0, *found.rates), found.growth, strict=True):
        assert row == pytest.approx([abs(1 + rate / 4) ** (4 - j) for j in range(5)])


def test_the_gain_of_an_error_in_a_state_is_a_derivative():
    """The table is linear on this equation, so that a difference of samples is the derivative."""
    solver = fs.classical.adams_bashforth(2, 5)
    rate, N = -4.0, solver.nfe
    C, D = solver.table.C, solver.table.D

    def sample(error):
        states = [torch.tensor(1.0).double()]
        for i in range(N):
            known = torch.stack(states)
            states.append((C[i, : i + 1] + rate * D[i, : i + 1]) @ known + (error if i + 1 == 2 else 0))
        return states[-1]

    found = fs.inspect(solver).stability
    assert found.growth[1 + found.rates.index(rate)][2] == pytest.approx(
        abs(float(sample(1.0) - sample(0.0)))
    )


@pytest.mark.parametrize("n", [1, 3, 8])
def test_every_call_of_euler_gains_its_step(n):
    errors = fs.inspect(fs.classical.euler(n)).errors
    assert errors.noise_gain == pytest.approx([1 / n] * n)
    assert errors.total == pytest.approx(1)
    assert errors.cancellation == pytest.approx(1)
    assert errors.largest_coefficient == 1


def test_weights_of_both_signs_cancel():
    """One step of Adams-Bashforth 2 after an Euler step: 1/2 u0 + 1/2 (3/2 u1 - 1/2 u0)."""
    errors = fs.inspect(fs.classical.adams_bashforth(2, 2)).errors
    assert errors.noise_gain == pytest.approx((0.25, 0.75))
    negative = fs.Solver((0.0, 0.5), ((1.0,), (1.0, 0.0)), ((0.5,), (-1.0, 2.0)), (0, 1, 2))
    errors = fs.inspect(negative).errors
    assert (errors.total, errors.cancellation) == (3, 3)
    none = fs.Solver((0.0, 0.5), ((1.0,), (1.0, 0.0)), ((0.5,), (-1.0, 1.0)), (0, 1, 2))
    assert fs.inspect(none).errors.cancellation is None


def test_gains_are_in_the_predictions_of_the_table():
    """DDIM to pure data returns its last prediction of the data as it is."""
    for schedule in (VP(), VE()):
        errors = fs.inspect(fs.classical.ddim(4, schedule=schedule)).errors
        assert errors.noise_gain == pytest.approx((0, 0, 0, 1))
