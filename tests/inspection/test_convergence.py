import math
from itertools import pairwise

import pytest
import torch

import fewstep as fs
from fewstep.inspection import refinement
from fewstep.inspection.convergence import INITIAL, _solution, _velocity, observed_order
from fewstep.schedules import VE, VP, CondOT, Cosine

adams = fs.classical.adams_bashforth


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (fs.classical.euler(2), 1),
        (fs.classical.midpoint(1), 2),
        (fs.classical.heun(3), 2),
        (fs.classical.ralston(2), 2),
        (fs.classical.rk4(1), 4),
        (fs.classical.midpoint(grid=[0, 0.2, 0.9, 1]), 2),
        (fs.classical.midpoint(grid=[0.25, 0.5, 0.75]), 2),
        (adams(2, 8, start="runge_kutta"), 2),
        (adams(3, 8, start="runge_kutta"), 3),
        (adams(4, 8, start="runge_kutta"), 4),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_order_of_a_repeated_table(solver, order):
    found = fs.inspect(solver).convergence
    assert found.how == "repeated"
    assert found.order == pytest.approx(order, abs=0.03)


def test_repeating_euler_is_euler_with_more_steps():
    repeated = fs.inspect(fs.classical.euler(4)).convergence
    refined = fs.inspect(fs.classical.euler(4), refine=refinement("euler", 4, CondOT())).convergence
    shared = list(zip(repeated.calls, refined.calls, strict=False))
    assert len(shared) == 6
    assert all(n == m for n, m in shared)
    assert refined.errors == pytest.approx(repeated.errors[:6], rel=1e-9)


def test_a_start_of_lower_order_is_repeated_but_not_refined():
    """Adams-Bashforth 2 begins with an Euler step: once, order 2; in every piece, order 1."""
    solver = adams(2, 8)
    assert fs.inspect(solver).convergence.order == pytest.approx(1, abs=0.03)
    refined = fs.inspect(solver, refine=refinement("ab2", 8, CondOT())).convergence
    assert refined.how == "refined"
    assert refined.order == pytest.approx(2, abs=0.03)


@pytest.mark.parametrize(
    ("name", "order", "schedule"),
    [
        ("ddim", 1, VP()),
        ("dpmpp_2m", 2, CondOT()),
        ("dpmpp_2m", 2, VP()),
        ("dpmpp_2m", 2, Cosine()),
        ("dpmpp_2m", 2, VE()),
        ("dpmpp_2m/karras", 2, VP()),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_order_of_exponential_integrators_by_name(name, order, schedule):
    solver = fs.classical.baselines(8, schedule, (name.partition("/")[2] or "uniform",))[name]
    found = fs.inspect(solver, refine=refinement(name, 8, schedule)).convergence
    assert found.order == pytest.approx(order, abs=0.06)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("dpmpp_2s", 2)])
def test_refined_solvers_converge_on_an_exact_gaussian_flow_too(name, order):
    """On data N(1, 0.25) the flow keeps the number of standard deviations: no test problem is involved."""
    refine = refinement(name, 8, VP())
    errors = []
    for k in (8, 16):
        solver = refine(k)
        alpha, sigma = (value.tolist() for value in solver.schedule(torch.tensor([0.0, 1.0]).double())[:2])
        start, end = (math.hypot(0.5 * a, s) for a, s in zip(alpha, sigma, strict=True))
        x0 = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
        network = fs.models.GaussianMixture(torch.ones(1, 1), 0.5, None, solver.schedule, "data")
        state = network.field().initial_state(x0)
        exact = alpha[1] + end / start * (state - alpha[0])
        errors.append((solver.sample(network.field(), x0) - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_refined_solvers_have_the_calls_asked_for_and_no_infinite_step():
    refine = refinement("dpmpp_2m/log_snr", 4, CondOT())
    for k in (1, 2, 4):
        solver = refine(k)
        assert solver.nfe == 4 * k
        log_snr = solver.schedule.log_snr(torch.tensor(solver.point_times))
        assert log_snr.isfinite().all()
        steps = log_snr.diff()
        torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=1e-6)
    assert refinement("midpoint", 3, CondOT())(1) is None
    assert [refinement("heun", 7, CondOT())(k) for k in (1, 2)] == [
        fs.classical.heun(4 * k, euler_last=True) for k in (1, 2)
    ]
    assert refinement("no_such_method", 4, CondOT())(1) is None


def test_the_test_problems_are_solved_by_their_solutions():
    assert torch.equal(_solution(0.0), torch.tensor(INITIAL, dtype=torch.float64))
    h = 1e-4
    for t in (0.2, 0.5, 0.8):
        slope = (_solution(t + h) - _solution(t - h)) / (2 * h)
        torch.testing.assert_close(_velocity(_solution(t), t), slope, rtol=1e-6, atol=1e-6)


def test_errors_fall_with_the_calls():
    found = fs.inspect(fs.classical.midpoint(2)).convergence
    assert all(m == 2 * n for n, m in pairwise(found.calls))
    assert all(f < e for e, f in pairwise(found.errors))


def test_what_cannot_be_repeated_is_not_measured():
    facts = fs.inspect(fs.classical.dpmpp("2M", 8, schedule=VP()))
    assert (facts.convergence, facts.not_measured) == (None, "one schedule")
    facts = fs.inspect(fs.classical.euler(4), refine={1: fs.classical.euler(4)}.get)
    assert (facts.convergence, facts.not_measured) == (None, "not refinable")


def test_many_calls_are_refined_once():
    calls = []

    def refine(k):
        calls.append(100 * k)
        return fs.classical.euler(100 * k)

    found = fs.inspect(fs.classical.euler(100), refine=refine).convergence
    assert calls == [100, 200]
    assert found.order == pytest.approx(1, abs=0.01)


def test_errors_of_rounding_alone_show_no_order():
    """Between two solvers whose errors are both nothing but rounding there is no slope."""
    assert observed_order({8: 1e-13, 16: 3e-13, 32: 2e-13}) is None
    assert observed_order({8: 1e-4, 16: 1e-13}) is None
    assert observed_order({8: 1e-3, 16: 1e-6, 32: 1e-9, 64: 1e-15}) == pytest.approx(math.log2(1000))
