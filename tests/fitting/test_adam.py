import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES, Adam
from fewstep.fitting._adam import EndpointObjective, PathObjective, adam
from fewstep.fitting._dense import dense_path
from fewstep.fitting._rollout import Rollout
from fewstep.fitting.losses import PathPairs, Steps
from fewstep.fitting.losses._pairs import carrying


def central_differences(function, theta, step=1e-6):
    units = step * torch.eye(len(theta), dtype=torch.float64)
    return torch.stack([(function(theta + unit) - function(theta - unit)) / (2 * step) for unit in units])


@pytest.mark.parametrize(
    "family", [NonStationary(fs.classical.midpoint(2)), ScaleTime("midpoint", 2)], ids=lambda f: f.name
)
@pytest.mark.parametrize("name", ENDPOINT_LOSSES)
def test_endpoint_gradient_is_that_of_full_samplings(bending, double_pairs, random_theta, family, name):
    pairs, loss = double_pairs(bending, 5), ENDPOINT_LOSSES[name]
    theta = random_theta(family).requires_grad_()
    objective = EndpointObjective(Rollout(bending, 99), family, loss)
    value = objective(theta, pairs, torch.arange(5))
    (gradient,) = torch.autograd.grad(value, theta)

    def by_sampling(at):
        return loss((family.solver(at).sample(bending, pairs.x0) - pairs.x1).square().mean(1))

    torch.testing.assert_close(value.detach(), by_sampling(theta.detach()), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        gradient, central_differences(by_sampling, theta.detach()), rtol=1e-5, atol=1e-7
    )


def test_endpoint_objective_reads_the_pairs_asked_for(bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(2)), double_pairs(bending, 5)
    theta = torch.zeros(family.size, dtype=torch.float64)
    objective = EndpointObjective(Rollout(bending, 99), family, ENDPOINT_LOSSES["mse"])
    some = objective(theta, pairs, torch.tensor([3, 1]))
    x1 = family.solver(theta).sample(bending, pairs.x0[[3, 1]])
    torch.testing.assert_close(some, (x1 - pairs.x1[[3, 1]]).square().mean())


@pytest.mark.parametrize("base", ["euler", "midpoint"])
@pytest.mark.parametrize("loss", ["local", "bound"])
def test_path_gradient_where_the_reference_path_is_straight(random_theta, base, loss):
    """On u = x / (1 + t) the path x0 (1 + t) is linear in t, so the stop-gradient stops nothing."""
    field = fs.Field(lambda x, t: x / (1 + t[:, None]), shape=(3,))
    x0 = fs.noise(4, (3,), dtype=torch.float64)
    family = ScaleTime(base, 3)
    pairs, _ = PathPairs.solved(fs.Pairs(x0, 2 * x0), field, rtol=1e-11, atol=1e-11)
    objective = PathObjective(Rollout(field, 99), family, Steps(loss).weights(family))
    index, theta = torch.arange(4), random_theta(family).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(theta, pairs, index), theta)
    expected = central_differences(lambda at: objective(at, pairs, index), theta.detach())
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


class Tangents:
    """Frozen reference: at its own times the path and its velocities, linear around them."""

    def __init__(self, times, states, velocities):
        self.times, self.states, self.velocities = times, states, velocities
        self.end = torch.ones((), dtype=torch.float64)

    def at(self, t):
        return self.states + self.velocities * (t - self.times)[:, None, None]

    def take(self, index):
        return Tangents(self.times, self.states[:, index], self.velocities[:, index])


@pytest.mark.parametrize("base", ["euler", "midpoint"])
@pytest.mark.parametrize("loss", ["local", "bound"])
def test_path_gradient_with_the_stopped_parts_frozen(bending, double_pairs, random_theta, base, loss):
    """Finite differences of the definition, whose states and velocities are solved for independently."""
    family, pairs = ScaleTime(base, 3), double_pairs(bending, 4)
    path, _ = dense_path(bending, pairs, rtol=1e-10, atol=1e-10, nodes=257)
    weights, index = Steps(loss).weights(family), torch.arange(4)
    theta = random_theta(family).requires_grad_()
    objective = PathObjective(Rollout(bending, 99), family, weights)
    along = carrying(PathPairs, pairs, path=path)
    (gradient,) = torch.autograd.grad(objective(theta, along, index), theta)

    times = torch.tensor(family.solver(theta).point_times, dtype=torch.float64)
    states = fs.reference.solve(bending, pairs.x0, times=times.tolist(), rtol=1e-10, atol=1e-10).states
    velocities = torch.stack([bending(x, float(t)) for x, t in zip(states, times, strict=True)])
    frozen = carrying(PathPairs, pairs, path=Tangents(times, states, velocities))
    expected = central_differences(lambda at: objective(at, frozen, index), theta.detach())
    torch.testing.assert_close(gradient, expected, rtol=2e-3, atol=1e-5)


def test_path_objective_is_the_weighted_sum_of_local_errors(bending, double_pairs):
    family, pairs = ScaleTime("euler", 2), double_pairs(bending, 4)
    pairs, _ = PathPairs.solved(pairs, bending, rtol=1e-10, atol=1e-10)
    theta, index = torch.zeros(family.size, dtype=torch.float64), torch.arange(4)
    parts = [
        PathObjective(Rollout(bending, 99), family, lambda theta, w=w: torch.tensor(w))(theta, pairs, index)
        for w in ([1.0, 0.0], [0.0, 1.0], [2.0, 3.0])
    ]
    torch.testing.assert_close(2 * parts[0] + 3 * parts[1], parts[2])


def test_path_losses_refuse_a_multistep_family():
    family = NonStationary(fs.classical.adams_bashforth(2, 3))
    with pytest.raises(ValueError, match="one-step solver"):
        Steps("local").weights(family)


def test_path_objective_gives_each_sample_its_own_condition(random_theta):
    """The loss of all pairs is the mean of the losses of each alone."""
    field = fs.Field(lambda x, t, target: (target - x).sin(), shape=(2,))
    x0, target = fs.noise(3, (2,)).double(), fs.noise(3, (2,), seed=1).double()
    pairs = fs.reference.pairs(field, x0, per_sample={"target": target})
    family = ScaleTime("midpoint", 2)
    pairs, _ = PathPairs.solved(pairs, field, rtol=1e-6, atol=1e-6)
    objective = PathObjective(Rollout(field, 99), family, Steps("local").weights(family))
    theta = random_theta(family)
    alone = [objective(theta, pairs, torch.tensor([k])) for k in range(3)]
    torch.testing.assert_close(objective(theta, pairs, torch.arange(3)), torch.stack(alone).mean())


@pytest.fixture
def setting(bending, double_pairs):
    family, pairs = ScaleTime("midpoint", 2), double_pairs(bending, 12)
    return family, pairs, EndpointObjective(Rollout(bending, 999), family, ENDPOINT_LOSSES["rmse"])


def test_reduces_the_loss(setting):
    family, pairs, objective = setting
    iterates = list(adam(objective, family.size, pairs, Adam(iterations=60)))
    assert iterates[-1].loss < iterates[0].loss / 3
    assert torch.equal(iterates[0].theta, torch.zeros(family.size, dtype=torch.float64))


def test_is_deterministic_for_a_seed(setting):
    family, pairs, objective = setting

    def last(seed):
        return list(adam(objective, family.size, pairs, Adam(iterations=10, batch=3), seed))[-1].theta

    assert torch.equal(last(0), last(0))
    assert not torch.equal(last(0), last(1))


def test_yields_the_start_and_then_every_so_many_iterations(setting):
    family, pairs, objective = setting
    settings = Adam(iterations=10, report_every=4)
    assert len(list(adam(objective, family.size, pairs, settings))) == 1 + 3


def test_leaves_the_global_random_state_alone(setting):
    family, pairs, objective = setting
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(adam(objective, family.size, pairs, Adam(iterations=5)))
    assert torch.equal(before, torch.get_rng_state())
