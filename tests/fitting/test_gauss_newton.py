import math

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES
from fewstep.fitting._rollout import Rollout


def linear_pairs(count=8):
    x0 = fs.noise(count, (3,), dtype=torch.float64)
    return fs.Pairs(x0, x0 * math.exp(-1))


def test_reaches_the_exact_two_call_solver_of_a_linear_field(run):
    """x1 = x0 / e is linear in x0, and so is every non-stationary solver of u = -x."""
    field, family = fs.Field(lambda x, t: -x, shape=(3,)), NonStationary(fs.classical.euler(2))
    iterates, _ = run(field, family, linear_pairs())
    fresh = fs.noise(100, (3,), seed=5, dtype=torch.float64)
    x1 = family.solver(iterates[-1].theta).sample(field, fresh)
    assert float(fs.metrics.rmse(x1, fresh * math.exp(-1))) < 1e-6
    assert iterates[0].loss > 0.1


def test_reaches_the_exact_solver_where_time_matters_too(run):
    """u = (1 - 4 t) x has x1 = x0 exp(1 - 2) and a time in every coefficient."""
    field = fs.Field(lambda x, t: (1 - 4 * t[:, None]) * x, shape=(3,))
    family = NonStationary(fs.classical.euler(2))
    iterates, _ = run(field, family, linear_pairs())
    assert iterates[-1].loss < 1e-5


@pytest.mark.parametrize("name", ENDPOINT_LOSSES)
@pytest.mark.parametrize(
    "family",
    [NonStationary(fs.classical.adams_bashforth(2, 4)), ScaleTime("midpoint", 2)],
    ids=lambda f: f.name,
)
def test_every_step_lowers_the_penalised_loss(run, bending, double_pairs, family, name):
    """The penalty starts at a tenth of the first loss and falls by 0.3 to 0.01 of it over the pairs."""
    iterates, _ = run(bending, family, double_pairs(bending, 12), ENDPOINT_LOSSES[name])
    first = abs(iterates[0].loss)
    assert len(iterates) > 3
    for k, (old, new) in enumerate(zip(iterates, iterates[1:], strict=False)):
        mu = first * max(0.01 / 12, 0.1 * 0.3**k)
        assert new.loss + mu * new.theta.square().sum() < old.loss + mu * old.theta.square().sum()


def test_the_loss_falls_with_every_iterate_while_it_is_far_from_its_least(run, bending, double_pairs):
    """Only at the very end the penalty may trade a few thousandths of the loss for a smaller theta."""
    for family in (NonStationary(fs.classical.adams_bashforth(2, 4)), ScaleTime("midpoint", 2)):
        for name in ("mse", "rmse"):
            iterates, _ = run(bending, family, double_pairs(bending, 12), ENDPOINT_LOSSES[name], reuse=0)
            losses = [iterate.loss for iterate in iterates]
            assert all(b < 1.01 * a for a, b in zip(losses, losses[1:], strict=False))
            assert losses[-1] < losses[0] / 5


def test_the_loss_reported_is_that_of_the_parameters(run, bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 12)
    for theta, loss, _ in run(bending, family, pairs, iterations=4)[0]:
        x1 = family.solver(theta).sample(bending, pairs.x0)
        assert loss == pytest.approx(float(fs.metrics.rmse(x1, pairs.x1)), rel=1e-6)


def test_the_first_iterate_is_the_start(run, bending, double_pairs):
    family = ScaleTime("euler", 3)
    (start, *_), _ = run(bending, family, double_pairs(bending, 8), iterations=1)
    assert torch.equal(start.theta, torch.zeros(family.size, dtype=torch.float64))


def test_needs_no_autograd(run):
    """The network leaves torch altogether."""

    def network(x, t):
        assert not torch.is_grad_enabled()
        return torch.from_numpy(np.tanh(-x.numpy() * (1 + t.numpy()[:, None])))

    field = fs.Field(network, shape=(3,))
    pairs = fs.reference.pairs(field, fs.noise(12, (3,)))
    iterates, _ = run(field, NonStationary(fs.classical.euler(3)), pairs)
    assert iterates[-1].loss < iterates[0].loss / 10


def test_is_deterministic(run, bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 8)
    first, second = run(bending, family, pairs)[0], run(bending, family, pairs)[0]
    assert len(first) == len(second)
    assert all(torch.equal(one.theta, other.theta) for one, other in zip(first, second, strict=True))


def test_chunks_of_pairs_do_not_change_the_step(run, bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 8)
    thetas = []
    for max_batch in (3, 4096):
        iterates, _ = run(bending, family, pairs, max_batch=max_batch, reuse=0, iterations=2)
        thetas.append(iterates[-1].theta)
    torch.testing.assert_close(*thetas, rtol=1e-6, atol=1e-9)


def test_normal_equations_are_the_gradient_of_the_loss(linearised, bending, double_pairs, random_theta):
    """Twice J^T W r is the derivative of mean rho(mse), for every rho."""
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 6)
    theta = random_theta(family)
    for loss in ENDPOINT_LOSSES.values():
        free = theta.clone().requires_grad_()
        end = Rollout(bending, 99).endpoint(family.table(free).unroll(), pairs)
        (expected,) = torch.autograd.grad(loss(fs.metrics.per_sample_mse(end, pairs.x1)), free)
        _, g = linearised(Rollout(bending, 99), family, pairs, loss, step=1e-6).normal_equations(theta)
        torch.testing.assert_close(2 * g, expected, rtol=1e-4, atol=1e-5)


def test_a_trial_step_that_makes_nan_is_rejected(run, bending, double_pairs):
    """Beyond its first neighbourhood the network returns NaN; every iterate stays finite and better."""
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 8)
    start = family.solver().sample(bending, pairs.x0, trajectory=True)
    reach = 1.02 * float(start.states.abs().max())
    refused = []

    def fragile(x, t):
        u = bending.model.network(x, t)
        far = x.abs() > reach
        refused.append(bool(far.any()))
        return torch.where(far, torch.nan, u)

    field = fs.Field(fragile, shape=(3,))
    losses = [iterate.loss for iterate in run(field, family, pairs, step=1e-6)[0]]
    assert any(refused)
    assert all(map(math.isfinite, losses))
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("name", ENDPOINT_LOSSES)
def test_a_start_that_is_exact_already_ends_in_peace(run, name):
    """A constant velocity: Euler is exact, and no time has any effect on the endpoint."""
    field = fs.Field(lambda x, t: torch.ones_like(x), shape=(3,))
    x0 = fs.noise(8, (3,), dtype=torch.float64)
    iterates, _ = run(
        field, NonStationary(fs.classical.euler(2)), fs.Pairs(x0, x0 + 1), ENDPOINT_LOSSES[name]
    )
    assert iterates[-1].loss <= iterates[0].loss


@pytest.mark.parametrize("count", [8, 16, 32])
@pytest.mark.parametrize("schedule", [fs.schedules.CondOT(), fs.schedules.Cosine()], ids=lambda s: s.name)
def test_few_pairs_never_make_a_mixture_worse_than_the_start(count, schedule):
    field = fs.models.random_mixture(24, 7, schedule=schedule).field("mixture")
    fitted = fs.fit(field, 6, pairs=count)
    fresh = fs.reference.pairs(field, fs.noise(1024, (24,), seed=77), batch=1024)
    start = NonStationary(fs.classical.baselines(6, schedule)["ab2"], schedule).solver()
    errors = [
        float(fs.metrics.rmse(solver.sample(field, fresh.x0), fresh.x1)) for solver in (fitted.solver, start)
    ]
    assert errors[0] <= errors[1]


def test_a_jacobian_serves_again_after_broydens_update(linearised, bending, double_pairs):
    """J' = J + (dx - J s) s^T / |s|^2, as the outer product says it, sample by sample."""
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 6)
    fitter = linearised(Rollout(bending, 99), family, pairs, reuse=1)
    zero = torch.zeros(family.size, dtype=torch.float64)
    fitter.normal_equations(zero)
    end, J = fitter.kept.residual + pairs.x1, fitter.kept.J.clone()
    step = 0.1 * torch.randn(family.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = fitter.rollout.calls
    A, g = fitter.normal_equations(zero + step)
    assert fitter.rollout.calls - before == 6 * 3  # one rollout of three calls, and no Jacobian
    moved = family.solver(step).sample(bending, pairs.x0)
    columns = J.permute(1, 2, 0)  # (B, D, P)
    expected = columns + (moved - end - columns @ step)[..., None] * step / step.square().sum()
    rows, r = expected.reshape(-1, family.size), (moved - pairs.x1)
    w = (0.5 / r.square().mean(1).sqrt())[:, None].expand_as(r).reshape(-1)
    torch.testing.assert_close(A, rows.T @ (w[:, None] * rows) / r.numel())
    torch.testing.assert_close(g, rows.T @ (w * r.reshape(-1)) / r.numel())
    fitter.normal_equations(zero)
    assert fitter.kept.served == 0


def test_reusing_jacobians_saves_calls_for_the_same_loss(run, bending, double_pairs):
    family, pairs = NonStationary(fs.classical.adams_bashforth(2, 4)), double_pairs(bending, 12)
    options = {"jacobian": "differences", "iterations": 40}
    (fresh, alone), (reused, saved) = (run(bending, family, pairs, reuse=n, **options) for n in (0, 1))
    assert reused[-1].loss < 1.2 * fresh[-1].loss
    assert saved.calls < 0.9 * alone.calls
