import math

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime, Timesteps
from fewstep.fitting import Adam, Nodes
from fewstep.fitting._adam import EndpointObjective
from fewstep.fitting._rollout import Rollout
from fewstep.fitting.losses import PathPairs

#: Families, and how the times of their points follow from theta.
FAMILIES = {
    "scale_time_rk1": (ScaleTime("euler", 3), lambda f, theta: f.nodes(theta).t),
    "scale_time_rk2": (ScaleTime("midpoint", 3), lambda f, theta: f.nodes(theta).t[::2]),
    "multistep": (Timesteps("ab2", 4), lambda f, theta: f.grid(theta)),
    "multistep_decoupled": (Timesteps("deis3", 4, decoupled=True), lambda f, theta: f.grid(theta)),
    "non_stationary": (
        NonStationary(Timesteps("ab2", 4, decoupled=True)),
        lambda f, theta: f.anchor.grid(theta[: f.anchor.size]),
    ),
    "non_stationary_fixed": (
        NonStationary(fs.classical.midpoint(2)),
        lambda f, theta: torch.cat([f.table(theta).times[[0, 2]], torch.ones(1, dtype=torch.float64)]),
    ),
}


@pytest.fixture(params=FAMILIES)
def case(request):
    return FAMILIES[request.param]


def decay(x, t):
    """The path from x0 is x0 exp(-t - t^2 / 2)."""
    return -(1 + t[:, None]) * x


@pytest.fixture
def field(counting):
    return fs.Field(counting(decay), shape=(3,), name="decay")


@pytest.fixture
def pairs():
    x0 = fs.noise(5, (3,), dtype=torch.float64)
    return fs.Pairs(x0, x0 * math.exp(-1.5))


def by_hand(family, times, theta, x0, name):
    """Every row of the table on numbers, and the exact path at the times of the points."""
    table, at = family.table(theta), times(family, theta)
    x, u = [x0], []
    for i in range(family.nfe):
        u.append(-(1 + table.times[i]) * x[i])
        x.append(sum(table.C[i, j] * x[j] + table.D[i, j] * u[j] for j in range(i + 1)))
    losses = []
    for point, t in list(zip(family.points, at, strict=True))[1:]:
        mse = (x[point] - x0 * torch.exp(-t - t.square() / 2)).square().mean(1)
        losses.append({"mse": mse, "rmse": mse.sqrt()}[name].mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("name", ["mse", "rmse"])
@pytest.mark.parametrize("way", ["directions", "differences", "jvp", "adam"])
def test_value_and_gradient_are_those_of_the_exact_path(
    case, field, pairs, random_theta, linearised, name, way
):
    """The gradient of the reference times its change of time is there, told times or not."""
    (family, times), loss = case, Nodes(name)
    theta = random_theta(family).requires_grad_()
    expected = by_hand(family, times, theta, pairs.x0, name)
    (slope,) = torch.autograd.grad(expected, theta)
    given, _ = loss.prepared(pairs, field, rtol=1e-11, atol=1e-11)
    rollout = Rollout(field, 99)
    if way == "adam":
        value = EndpointObjective(rollout, family, loss)(theta, given, torch.arange(5))
        (gradient,) = torch.autograd.grad(value, theta)
        value = value.detach()
    else:
        options = {"jacobian": way} | ({} if way == "jvp" else {"step": 1e-6})
        task = linearised(rollout, family, given, loss, **options)
        value, gradient = task.loss(theta.detach()), 2 * task.normal_equations(theta.detach())[1]
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-5)


def test_chunks_change_nothing(field, pairs, random_theta, linearised):
    family, loss, systems = FAMILIES["multistep"][0], Nodes(), []
    given, _ = loss.prepared(pairs, field, rtol=1e-9, atol=1e-9)
    for memory in (1, 2000, 2**28):
        task = linearised(Rollout(field, 99), family, given, loss, step=1e-5, memory=memory)
        systems.append(task.normal_equations(random_theta(family)))
    for A, g in systems[:2]:
        torch.testing.assert_close(A, systems[2][0], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(g, systems[2][1], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4"])
def test_points_of_scale_time_solvers_have_the_times_of_their_solvers(name, random_theta):
    family = ScaleTime(name, 3)
    theta = random_theta(family)
    assert family.point_times(theta).tolist() == pytest.approx(family.solver(theta).point_times)


@pytest.mark.parametrize("base", sorted(fs.classical.baselines(6)))
@pytest.mark.all_rivals
def test_every_classical_solver_has_as_many_times_as_points(base, random_theta):
    family = Timesteps(base, 6, decoupled=True)
    assert len(family.point_times(random_theta(family))) == len(family.points)
    assert len(NonStationary(family).point_times(torch.zeros(200, dtype=torch.float64))) == len(family.points)


@pytest.mark.parametrize("optimizer", ["gauss_newton", Adam(iterations=60)], ids=str)
@pytest.mark.parametrize("family", ["non_stationary", "scale_time", "timesteps"])
def test_fits_every_family_and_counts_its_calls(bending, optimizer, family):
    init = None if family == "scale_time" else "deis3/cosine"
    report = fs.fit(bending, 4, family=family, init=init, pairs=12, loss="nodes", optimizer=optimizer).report
    assert report.loss == "nodes(rmse)"
    assert sum(report.calls.values()) == bending.model.seen
    assert report.curve[-1]["loss"] < (0.7 if family == "timesteps" else 0.5) * report.curve[0]["loss"]
    quality = [entry["validation_psnr"] for entry in report.curve]
    assert report.best_iteration == quality.index(max(quality))


def test_a_fit_of_nodes_keeps_to_the_path(bending, double_pairs):
    """Closer than one of the endpoint, which is free to stray on the way."""
    pairs, errors = double_pairs(bending, 24), {}
    fresh = double_pairs(bending, 16, seed=5)
    for loss in ("rmse", "nodes"):
        solver = fs.fit(bending, 4, pairs=pairs, loss=loss, init="ab2").solver
        family = NonStationary(Timesteps("ab2", 4, decoupled=True))
        theta = torch.tensor(solver.family["theta"], dtype=torch.float64)
        times = family.point_times(theta).tolist()
        exact = fs.reference.solve(bending, fresh.x0, times=times, rtol=1e-9, atol=1e-9).states
        errors[loss] = [
            float(fs.metrics.rmse(x, y))
            for x, y in zip(solver.sample(bending, fresh.x0, trajectory=True).states, exact, strict=True)
        ]
    assert max(errors["nodes"][1:-1]) < 0.5 * max(errors["rmse"][1:-1])


def test_parts_of_the_pairs_keep_their_paths(field, pairs):
    given, calls = Nodes().prepared(pairs, field, rtol=1e-9, atol=1e-9)
    assert calls == field.model.seen
    part = given[torch.tensor([4, 1])]
    assert isinstance(part, PathPairs)
    torch.testing.assert_close(part.path.states[-1], part.x1, rtol=1e-6, atol=1e-7)


def test_an_unknown_loss_of_nodes_is_refused():
    with pytest.raises(ValueError, match=r"Nodes: loss must be one of mse, .*, not 'nodes'"):
        Nodes("nodes")
