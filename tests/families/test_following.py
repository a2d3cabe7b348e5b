"""Solvers whose coefficients follow their times, and solvers with unread calls."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import Following, NonStationary, ScaleTime, refined
from fewstep.schedules import VP, CondOT, Cosine


def velocity(x, t):
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1))) - 0.3 * x


def random_theta(family, scale=0.3, seed=0):
    return scale * torch.randn(
        family.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def some_solvers():
    bespoke = ScaleTime("midpoint", 3)
    return {
        "midpoint": fs.classical.midpoint(3),
        "ab2": fs.classical.named("ab2", 6),
        "bespoke": bespoke.solver(random_theta(bespoke, 0.1)),
    }


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine()], ids=repr)
@pytest.mark.parametrize("name", list(some_solvers()))
def test_zero_is_the_solver_to_the_last_bit(schedule, name):
    start = some_solvers()[name]
    solver, reduced = Following(start, schedule).solver(), start.unroll()
    assert (solver.times, solver.C, solver.D) == (reduced.times, reduced.C, reduced.D)


def test_around_the_base_itself_only_the_base_is_left():
    """Following DEIS from DEIS is DEIS at its current times."""
    start = fs.classical.named("deis3", 5, CondOT())
    family = Following(start, CondOT())
    theta = random_theta(family)
    expected = fs.families.Timesteps("deis3", 5, CondOT(), decoupled=True).table(theta).unroll()
    for got, want in zip(family.table(theta).unroll(), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)


def test_constants_stay_exact_wherever_the_times_go():
    """A solver that is exact for dx/dt = 1 stays so, as the base it follows is."""
    family = Following(some_solvers()["ab2"])
    solver = family.solver(random_theta(family))
    x0 = fs.noise(3, (2,), dtype=torch.float64)
    x1 = solver.sample(lambda x, t: torch.ones_like(x), x0)
    torch.testing.assert_close(x1, x0 + 1, rtol=0, atol=1e-12)


def test_calls_at_one_time_are_refused():
    with pytest.raises(ValueError, match=r"must increase strictly.*pass it to NonStationary"):
        Following(fs.classical.heun(3))


@pytest.mark.parametrize("name", list(some_solvers()))
@pytest.mark.parametrize("nfe", [6, 7, 9])
def test_a_refined_solver_gives_the_same_samples(name, nfe):
    start = some_solvers()[name]
    more = refined(start, nfe)
    x0 = fs.noise(4, (3,), dtype=torch.float64)
    assert more.nfe == nfe
    torch.testing.assert_close(more.sample(velocity, x0), start.sample(velocity, x0), rtol=1e-12, atol=1e-12)
    assert list(more.times) == sorted(more.times)
    Following(more)  # its calls are apart


def test_a_refined_solver_passes_through_the_same_points():
    start = fs.classical.midpoint(2)
    x0 = fs.noise(4, (3,), dtype=torch.float64)
    before = start.sample(velocity, x0, trajectory=True)
    after = refined(start, 7).sample(velocity, x0, trajectory=True)
    torch.testing.assert_close(after.states, before.states, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.times, before.times)


def test_calls_go_where_the_gap_is_longest():
    start = fs.classical.euler(grid=[0, 0.1, 0.7, 1])
    assert refined(start, 5).times == pytest.approx([0, 0.1, 0.4, 0.7, 0.85])


def test_no_call_can_be_taken_away():
    with pytest.raises(ValueError, match="at least 6"):
        refined(fs.classical.midpoint(3), 5)


def test_the_derivatives_reach_every_number():
    family = NonStationary(Following(refined(fs.classical.named("ab2", 3), 4)))
    theta = random_theta(family, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda theta: tuple(family.table(theta)), theta)
