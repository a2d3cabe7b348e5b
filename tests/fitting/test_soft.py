import math

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary
from fewstep.fitting import Adam, Features, Soft
from fewstep.fitting._adam import EndpointObjective, SoftObjective, adam, objective
from fewstep.fitting._rollout import Rollout

MATRIX = torch.tensor([[-0.4, 1.1], [-0.9, -0.2]], dtype=torch.float64)
FAMILY = NonStationary(fs.classical.euler(3))


@pytest.fixture
def field():
    return fs.Field(lambda x, t: x @ MATRIX.to(x).T, shape=(2,))


@pytest.fixture
def pairs():
    """Samples that no solver reaches from its noise."""
    x0 = fs.noise(4, (2,), dtype=torch.float64)
    return fs.Pairs(x0, x0 @ torch.linalg.matrix_exp(MATRIX).T + 0.05 * fs.noise(4, (2,), seed=1).double())


def searched(field, theta, pairs, radius, points=201):
    """The least RMSE over each ball, by trying a disc of noises (closed form: the solver is linear)."""
    phi = torch.linspace(0, 2 * math.pi, points, dtype=torch.float64)
    ways = torch.stack([phi.cos(), phi.sin()], dim=1)
    disc = torch.cat([scale * ways for scale in torch.linspace(0, radius, points, dtype=torch.float64)])
    unit = torch.eye(2, dtype=torch.float64)
    M = FAMILY.solver(theta).sample(field, unit)  # rows are the images of the unit vectors
    least = []
    for x0, x1 in zip(pairs.x0, pairs.x1, strict=True):
        least.append(((x0 + disc) @ M - x1).square().mean(1).sqrt().min())
    return torch.stack(least).mean()


def settled(field, theta, pairs, radius, visits=200):
    """The objective after many steps of the noises only."""
    soft = SoftObjective(EndpointObjective(Rollout(field, 99), FAMILY, Soft().loss), pairs, radius)
    index, theta = torch.arange(len(pairs)), theta.clone().requires_grad_()
    for _ in range(visits):
        gradient = soft.gradient(soft(theta, pairs, index), theta)
    return soft, float(soft(theta, pairs, index).detach()), gradient


@pytest.mark.parametrize("radius", [0.003, 0.02, 0.06])
def test_the_noises_find_the_best_of_their_balls(field, pairs, random_theta, radius):
    """These minima lie on the surface of the ball."""
    theta = random_theta(FAMILY, 0.05)
    soft, value, _ = settled(field, theta, pairs, radius)
    assert value == pytest.approx(float(searched(field, theta, pairs, radius)), rel=0.02, abs=1e-3)
    assert value < (1 - 3 * radius) * float(searched(field, theta, pairs, 0.0))
    assert soft.moves.norm(dim=1).max() <= radius * (1 + 1e-9)


def test_the_noises_settle_where_the_minimum_lies_within(field, pairs, random_theta):
    """A ball that reaches the sample itself: steps of a constant length would circle around it."""
    theta, radius = random_theta(FAMILY, 0.05), 0.6
    hard = float(searched(field, theta, pairs, 0.0))
    assert float(searched(field, theta, pairs, radius)) < 0.05 * hard
    soft, value, _ = settled(field, theta, pairs, radius)
    assert value < 0.05 * hard
    assert soft.moves.norm(dim=1).max() < 0.9 * radius


def test_the_gradient_is_that_of_the_minimum(field, pairs, random_theta):
    """The envelope theorem: the derivative of the least loss is the derivative at the best noise."""
    theta, radius, h = random_theta(FAMILY, 0.05), 0.01, 1e-4
    _, _, gradient = settled(field, theta, pairs, radius)
    units = h * torch.eye(FAMILY.size, dtype=torch.float64)[::3]
    up, down = (
        torch.stack([searched(field, theta + u, pairs, radius) for u in side]) for side in (units, -units)
    )
    torch.testing.assert_close(gradient[::3], (up - down) / (2 * h), rtol=0.02, atol=2e-3)


def test_only_the_noises_of_the_minibatch_move(field, pairs, random_theta):
    soft = SoftObjective(EndpointObjective(Rollout(field, 99), FAMILY, Soft().loss), pairs, 0.01)
    theta = random_theta(FAMILY).requires_grad_()
    soft.gradient(soft(theta, pairs, torch.tensor([2, 0])), theta)
    moved = soft.moves.norm(dim=1)
    assert (moved > 0).tolist() == [True, False, True, False]
    torch.testing.assert_close(moved[[0, 2]], torch.full((2,), 0.01, dtype=torch.float64))


def test_the_first_step_goes_straight_down(field, pairs, random_theta):
    """To where a linear loss is least on the ball: against its gradient, found by differences here."""
    soft = SoftObjective(EndpointObjective(Rollout(field, 99), FAMILY, Soft().loss), pairs, 0.01)
    theta, index = random_theta(FAMILY), torch.arange(4)
    free = theta.clone().requires_grad_()
    soft.gradient(soft(free, pairs, index), free)
    M = FAMILY.solver(theta).sample(field, torch.eye(2, dtype=torch.float64))
    slope = (pairs.x0 @ M - pairs.x1) @ M.T
    torch.testing.assert_close(soft.moves, -0.01 * slope / slope.norm(dim=1, keepdim=True))


def test_a_ball_of_no_size_is_the_hard_loss(bending, double_pairs):
    pairs = double_pairs(bending, 8)
    lasts = []
    for loss in (Soft("mse", radius=0), Soft("mse").loss):
        lowered = objective(loss, Rollout(bending, 99), FAMILY, pairs)
        lasts.append(list(adam(lowered, FAMILY.size, pairs, Adam(12, batch=4)))[-1])
    torch.testing.assert_close(lasts[0].theta, lasts[1].theta, rtol=1e-12, atol=1e-14)
    assert lasts[0].loss == pytest.approx(lasts[1].loss)


def test_the_default_radius_is_ld3s(bending, double_pairs):
    """r = 0.001 d / NFE^2, for three dimensions and three calls."""
    soft = objective(Soft(), Rollout(bending, 99), FAMILY, double_pairs(bending, 4))
    assert soft.radius == pytest.approx(0.001 * 3 / 9)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("soft", "soft(rmse)"),
        (Soft("log_mse", radius=0.5), "soft(log_mse, radius=0.5)"),
        (Soft(Features(torch.sin, "mse")), "soft(features(sin, mse))"),
    ],
    ids=["rmse", "log_mse", "features"],
)
def test_fits_and_counts_its_calls(bending, loss, name):
    report = fs.fit(bending, 3, pairs=12, loss=loss, optimizer=Adam(60)).report
    assert report.loss == name
    assert sum(report.calls.values()) == bending.model.seen
    assert report.errors["fitted"] < report.errors[report.start]


def test_validation_starts_from_the_noises_as_they_are(bending, double_pairs):
    pairs = double_pairs(bending, 12)
    fitted = fs.fit(bending, 3, pairs=pairs, loss=Soft(radius=0.3), optimizer=Adam(30))
    x1 = fitted.solver.sample(bending, pairs.x0[9:])
    error = float(fs.metrics.rmse(x1, pairs.x1[9:]))
    assert fitted.report.errors["fitted"] == pytest.approx(error, rel=1e-4)


def test_gauss_newton_is_refused(bending):
    with pytest.raises(ValueError, match=r"loss='soft\(rmse\)' needs gradients.*pass optimizer='adam'"):
        fs.fit(bending, 3, pairs=8, loss="soft")
    assert bending.model.seen == 0


@pytest.mark.parametrize("options", [{"loss": "nodes"}, {"radius": -1.0}, {"radius": math.inf}], ids=str)
def test_arguments_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match=r"Soft: (loss|radius) must be"):
        Soft(**options)
