import pytest
import torch

import fewstep as fs
from fewstep.fitting._dense import DensePath, dense_path

BETWEEN = [0.013, 0.21, 0.5, 0.777, 0.991]


@pytest.fixture
def pairs(mixture, double_pairs):
    return double_pairs(mixture, 4)


@pytest.fixture
def path(mixture, pairs):
    return dense_path(mixture, pairs, rtol=1e-10, atol=1e-10)[0]


def test_value_between_nodes_is_the_reference(mixture, pairs, path):
    times = [0.0, *BETWEEN, 1.0]
    exact = fs.reference.solve(mixture, pairs.x0, times=times, rtol=1e-11, atol=1e-11).states
    torch.testing.assert_close(path.at(torch.tensor(times, dtype=torch.float64)), exact, rtol=0, atol=2e-5)


def test_both_ends_are_exact(pairs, path):
    ends = path.at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.stack([pairs.x0, pairs.x1]), rtol=0, atol=1e-7)


def test_time_derivative_is_the_velocity(mixture, pairs, path):
    t = torch.tensor(BETWEEN, dtype=torch.float64, requires_grad=True)
    x = path.at(t)
    for i, time in enumerate(BETWEEN):
        velocity = mixture(x[i].detach(), time)
        for sample, coordinate in [(0, 0), (3, 17)]:
            (slope,) = torch.autograd.grad(x[i, sample, coordinate], t, retain_graph=True)
            expected = torch.zeros(len(BETWEEN), dtype=torch.float64)
            expected[i] = velocity[sample, coordinate]
            torch.testing.assert_close(slope, expected, rtol=5e-3, atol=5e-3)


def test_value_does_not_depend_on_whether_gradients_are_asked(path):
    t = torch.tensor(BETWEEN, dtype=torch.float64)
    assert torch.equal(path.at(t), path.at(t.clone().requires_grad_()).detach())


def test_the_gradient_stops_at_second_order(path):
    """x_aux is linear in t around its own value: no curvature of the path reaches the optimiser."""
    t = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(path.at(t).sum(), t, create_graph=True)
    assert slope.grad_fn is None or torch.autograd.grad(slope, t, allow_unused=True)[0] is None


def test_a_cubic_is_read_exactly():
    """Cubic Hermite interpolation has no error on x(t) = t^3 - 2 t^2 + t."""
    nodes = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)

    def x(t):
        return t**3 - 2 * t**2 + t

    def u(t):
        return 3 * t**2 - 4 * t + 1

    path = DensePath(nodes, x(nodes)[:, None, None], u(nodes)[:, None, None])
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(path.at(t)[:, 0, 0], x(t), rtol=0, atol=1e-14)


def test_take_keeps_the_paths_of_the_samples_asked_for(path):
    t = torch.tensor(BETWEEN, dtype=torch.float64)
    some = path.take(torch.tensor([2, 0]))
    torch.testing.assert_close(some.at(t), path.at(t)[:, [2, 0]])


def test_calls_are_those_that_the_network_saw(bending, double_pairs):
    pairs = double_pairs(bending, 5)
    bending.model.seen = 0
    _, calls = dense_path(bending, pairs, rtol=1e-6, atol=1e-6)
    assert calls == bending.model.seen


def test_conditions_reach_the_network():
    field = fs.Field(lambda x, t, target: target - x, shape=(2,))
    x0, target = torch.zeros(3, 2), torch.arange(6.0).reshape(3, 2)
    pairs = fs.reference.pairs(field, x0, per_sample={"target": target})
    path, _ = dense_path(field, pairs, rtol=1e-6, atol=1e-6)
    x1 = path.at(torch.ones(1, dtype=torch.float64))[0]
    torch.testing.assert_close(x1, target * (1 - torch.tensor(-1.0).exp()), rtol=1e-4, atol=1e-4)
