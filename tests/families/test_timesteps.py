"""Classical solvers on free times, and corrections around them."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime, Timesteps
from fewstep.schedules import VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE()]
#: One of each kind: a single stage, stages, history, in time, in lambda, with a call at the end.
BASES = ["euler", "heun", "midpoint", "rk4", "ab3", "dpmpp_2m", "unipc3", "deis3", "ipndm", "dpmpp_2s"]
each_base = pytest.mark.parametrize("base", BASES)


def field(x, t):
    """A velocity that is nonlinear in state and time."""
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1))) - 0.3 * x


def random_theta(family, scale=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(family.size, dtype=torch.float64, generator=generator)


def numbers(solver):
    return solver.times, solver.C, solver.D, solver.points, solver.end


def velocity_solvers(nfe, schedule):
    """The classical solvers by name, as tables of velocities."""
    for name, solver in fs.classical.baselines(nfe, schedule, ("uniform", "karras")).items():
        yield name, solver.to("velocity", schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize(("nfe", "decoupled"), [(4, True), (5, False)])
def test_theta_zero_is_the_classical_solver(nfe, schedule, decoupled):
    for name, table in velocity_solvers(nfe, schedule):
        family = Timesteps(name, nfe, schedule, decoupled=decoupled)
        assert numbers(family.solver()) == numbers(table), name
        assert numbers(NonStationary(family).solver()) == numbers(table.unroll()), name


@each_base
def test_the_counts_of_parameters(base):
    plain = Timesteps(base, 8)
    steps = len(plain.points) - 1
    decoupled = Timesteps(base, 8, decoupled=True)
    assert plain.size == steps - 1
    assert decoupled.size == steps - 1 + 8
    assert NonStationary(decoupled).size == decoupled.size + 8 + 8 * 9 // 2
    if steps == 8:
        assert NonStationary(plain).size == 8 * (8 + 5) // 2 - 1


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=repr)
@each_base
def test_moved_times_make_the_classical_solver_of_the_moved_grid(base, schedule):
    """The family of the times alone, and that of corrections when nothing but times moves."""
    family = Timesteps(f"{base}/cosine", 8, schedule)
    around = NonStationary(family)
    theta = random_theta(family)
    moved = family.solver(theta)
    assert moved.point_times != family.solver().point_times
    method = fs.classical.METHODS[base]
    expected = method.on(list(moved.point_times), schedule).to("velocity", schedule)
    assert numbers(moved) == numbers(expected)
    padded = torch.cat([theta, torch.zeros(around.size - family.size, dtype=torch.float64)])
    assert numbers(around.solver(padded)) == numbers(expected.unroll())


def test_the_coefficients_are_those_of_the_grid_and_not_of_the_times_told():
    family, plain = Timesteps("deis3", 6, Cosine(), decoupled=True), Timesteps("deis3", 6, Cosine())
    theta = random_theta(family)
    told, kept = family.table(theta), plain.table(theta[: plain.size])
    assert torch.equal(told.C, kept.C)
    assert torch.equal(told.D, kept.D)
    assert bool((told.times != kept.times)[1:].all())


def test_told_times_move_by_the_share_of_the_smaller_gap():
    family = Timesteps("euler", 3, grid=[0.0, 0.5, 0.6, 1.0], decoupled=True)
    theta = torch.tensor([0.0, 0.0, 0.7, 0.7, -0.7], dtype=torch.float64)
    move = 0.45 * torch.tensor(0.7, dtype=torch.float64).tanh()
    expected = torch.stack([0.5 * move, 0.5 + 0.1 * move, 0.6 - 0.1 * move])
    torch.testing.assert_close(family.table(theta).times, expected, rtol=0, atol=1e-15)
    # Before the start there is no time: the first call stays.
    assert float(family.table(-theta).times[0]) == 0


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=repr)
@each_base
def test_wild_theta_keeps_told_times_in_order_and_near(base, schedule):
    for grid in ("uniform", "karras"):
        family = Timesteps(f"{base}/{grid}", 8, schedule, decoupled=True)
        for seed in range(3):
            theta = random_theta(family, 3.0, seed)
            solver = family.solver(theta)  # checks that points increase
            own = Timesteps(f"{base}/{grid}", 8, schedule).table(theta[: len(family.points) - 2]).times
            told = torch.tensor(solver.times, dtype=torch.float64)
            assert 0 <= told.min()
            assert told.max() <= 1
            before, after = own[None] < own[:, None] - 1e-12, told[None] < told[:, None]
            assert bool((after | ~before).all())
            distance = (own[None] - own[:, None]).abs()
            gap = torch.where(distance > 1e-12, distance, torch.inf).amin(dim=1)
            assert bool(((told - own).abs() <= 0.45 * gap + 1e-12).all())


@pytest.mark.parametrize("scale", [1e3, 1e9])
def test_even_absurd_theta_keeps_points_apart(scale):
    for base in BASES:
        family = Timesteps(base, 8, decoupled=True)
        for seed in range(3):
            times = family.grid(random_theta(family, scale, seed))
            assert bool((times.diff() > 0).all())


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=repr)
@each_base
def test_gradients_are_those_of_central_differences(base, schedule, decoupled):
    family = Timesteps(base, 4, schedule, decoupled=decoupled)
    theta = random_theta(family)
    if decoupled:
        theta[len(family.points) - 2 :].abs_()  # away from where the first and last call cannot move
        theta[-1] *= -1
    assert torch.autograd.gradcheck(lambda theta: tuple(family.table(theta)), theta.requires_grad_())


@pytest.mark.parametrize("base", ["midpoint", "ab2", "deis3/cosine"])
def test_corrections_have_the_gradients_of_central_differences(base):
    family = NonStationary(Timesteps(base, 4, decoupled=True))
    theta = random_theta(family, 0.1).abs().requires_grad_()
    assert torch.autograd.gradcheck(lambda theta: tuple(family.table(theta)), theta)


@each_base
def test_every_parameter_matters(base):
    family = Timesteps(base, 8, decoupled=True)
    theta = random_theta(family).abs()
    theta[-1] *= -1
    jacobian = torch.autograd.functional.jacobian(
        lambda theta: torch.cat([part.flatten() for part in family.table(theta)]), theta
    )
    assert bool((jacobian.abs().amax(dim=0) > 1e-6).all())


def test_corrections_around_any_family():
    """Around a scale-time solver at its own theta, they are those around that solver."""
    inner = ScaleTime("midpoint", 2)
    around = NonStationary(inner)
    theta = random_theta(around)
    fixed = NonStationary(inner.solver(theta[: inner.size]))
    still = torch.cat([torch.zeros(3, dtype=torch.float64), theta[inner.size :]])
    assert around.size == inner.size + 4 + 10
    for part, expected in zip(around.table(theta), fixed.table(still), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("corrected", [False, True])
def test_the_solver_file_tells_what_it_was_made_of(tmp_path, corrected):
    family = Timesteps("deis3/cosine", 4, Cosine(), decoupled=True)
    family = NonStationary(family) if corrected else family
    solver = family.solver(random_theta(family, 0.1))
    solver.save(tmp_path / "solver.json")
    loaded = fs.Solver.load(tmp_path / "solver.json")
    assert loaded == solver
    x0 = fs.noise(3, (2,))
    flow = fs.Field(field, Cosine())
    assert torch.equal(loaded.sample(flow, x0), solver.sample(flow, x0))
    facts = loaded.family
    assert (facts["base"], facts["decoupled"]) == ("deis3/cosine", True)
    assert len(facts["grid"]) == 5
    assert family.solver(torch.tensor(facts["theta"], dtype=torch.float64)) == solver


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("magic", 4), "solver must be one of euler, .* not 'magic'"),
        (("ab2/magic", 4), "grid must be one of uniform, .* not 'magic'"),
        (("midpoint", 5), "'midpoint' makes 2, 4, 6, ... calls under .*, not 5"),
    ],
)
def test_unknown_bases_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Timesteps(*arguments)


def test_a_grid_of_another_number_of_steps_is_named():
    with pytest.raises(ValueError, match="'heun' makes 4 calls on the 2 steps of grid, not nfe=6"):
        Timesteps("heun", 6, grid=[0, 0.3, 1])
    with pytest.raises(ValueError, match=r"solver must be one of euler, .* not 'ab2/cosine'"):
        Timesteps("ab2/cosine", 2, grid=[0, 0.3, 1])
