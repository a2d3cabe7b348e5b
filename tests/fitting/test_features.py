import math

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES, Adam, Features, GaussNewton
from fewstep.fitting._adam import EndpointObjective
from fewstep.fitting._rollout import Rollout
from fewstep.fitting.losses import FeaturePairs

JVP = GaussNewton(jacobian="jvp")
MATRIX = torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.7, 0.2]], dtype=torch.float64)
FAMILIES = [NonStationary(fs.classical.adams_bashforth(2, 3)), ScaleTime("midpoint", 2)]


def bent(x):
    """Two features of three numbers, not linear."""
    return torch.tanh(x @ MATRIX.to(x)) + 0.1 * x[:, :2].square()


def leaving_torch(x):
    return torch.from_numpy(np.tanh(x.numpy() @ MATRIX.numpy()))


def prepared(loss, pairs, field):
    return loss.prepared(pairs, field, rtol=1e-6, atol=1e-6)[0]


def by_sampling(family, theta, field, pairs, name):
    """The loss of features, by the sampler that users call and by hand."""
    x1 = family.solver(theta).sample(field, pairs.x0)
    mse = (bent(x1) - bent(pairs.x1)).square().mean(1)
    return {"mse": mse, "rmse": mse.sqrt(), "log_mse": mse.log()}[name].mean()


def slopes(function, theta, step=1e-6):
    units = step * torch.eye(len(theta), dtype=torch.float64)
    return torch.stack([(function(theta + unit) - function(theta - unit)) / (2 * step) for unit in units])


@pytest.mark.parametrize("name", ["mse", "rmse", "log_mse"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("way", ["directions", "differences", "jvp", "adam"])
def test_gradient_is_that_of_sampled_features(
    bending, double_pairs, random_theta, linearised, family, name, way
):
    pairs, loss, theta = double_pairs(bending, 5), Features(bent, name), random_theta(family)
    expected = slopes(lambda at: by_sampling(family, at, bending, pairs, name), theta)
    rollout, given = Rollout(bending, 99), prepared(loss, pairs, bending)
    if way == "adam":
        free = theta.clone().requires_grad_()
        value = EndpointObjective(rollout, family, loss)(free, given, torch.arange(5))
        (gradient,) = torch.autograd.grad(value, free)
        value = value.detach()
    else:
        options = {"jacobian": way} | ({} if way == "jvp" else {"step": 1e-6})
        task = linearised(rollout, family, given, loss, **options)
        value, gradient = task.loss(theta), 2 * task.normal_equations(theta)[1]
    assert float(value) == pytest.approx(float(by_sampling(family, theta, bending, pairs, name)), rel=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_chunks_change_nothing(bending, double_pairs, random_theta, linearised):
    """Nor does a feature count that is not that of the sample."""
    family, pairs = FAMILIES[0], double_pairs(bending, 6)
    systems = []
    for memory in (1, 3000, 2**28):
        loss = Features(lambda x: bent(x).repeat(1, 5))
        given = prepared(loss, pairs, bending)
        task = linearised(Rollout(bending, 99), family, given, loss, step=1e-5, memory=memory)
        systems.append(task.normal_equations(random_theta(family)))
    for A, g in systems[:2]:
        torch.testing.assert_close(A, systems[2][0], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(g, systems[2][1], rtol=1e-9, atol=1e-13)


def test_features_need_no_autograd(bending, double_pairs):
    loss = Features(leaving_torch)
    options = {"loss": loss, "optimizer": GaussNewton(iterations=4), "init": "ab2"}
    report = fs.fit(bending, 3, pairs=double_pairs(bending, 12), **options).report
    assert report.errors["fitted"] < 0.5 * report.errors[report.start]


def test_features_reach_the_exact_solver_of_a_linear_field():
    """x1 = x0 / e is linear in x0, and so are two calls of u = -x and the features."""
    field, x0 = fs.Field(lambda x, t: -x, shape=(3,)), fs.noise(8, (3,), dtype=torch.float64)
    pairs = fs.Pairs(x0, x0 * math.exp(-1))
    fitted = fs.fit(field, 2, pairs=pairs, init=fs.classical.euler(2), loss=Features(lambda x: 3 * x[:, 1:]))
    assert fitted.report.errors["fitted"] < 1e-6


@pytest.mark.parametrize("optimizer", [GaussNewton(last_steps=0), Adam(iterations=60)], ids=str)
def test_the_iterate_is_chosen_by_the_features(bending, double_pairs, optimizer):
    pairs = double_pairs(bending, 16)
    loss = Features(lambda x: x[:, :1])
    fitted = fs.fit(bending, 4, pairs=pairs, loss=loss, optimizer=optimizer)
    quality = [entry["validation_psnr"] for entry in fitted.report.curve]
    assert fitted.report.best_iteration == quality.index(max(quality))
    error = (fitted.solver.sample(bending, pairs.x0[12:]) - pairs.x1[12:]).square()
    by_hand = (20 * math.log10(2) - 10 * error[:, 0].log10()).mean()
    assert max(quality) == pytest.approx(float(by_hand), abs=1e-3)
    assert fitted.report.errors["fitted"] == pytest.approx(float(error.mean(1).sqrt().mean()), rel=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [GaussNewton(iterations=3), GaussNewton(iterations=3, jacobian="jvp"), Adam(iterations=12)],
    ids=str,
)
def test_the_feature_calls_reported_are_those_that_were_made(bending, optimizer):
    seen = []

    def phi(x):
        seen.append(len(x))
        return x[:, :2].sin()

    loss = Features(phi)
    report = fs.fit(bending, 3, pairs=12, loss=loss, optimizer=optimizer).report
    if getattr(optimizer, "jacobian", None):  # a derivative is one pass through phi that counts as two
        assert sum(seen) < report.feature_calls < 2 * sum(seen)
    else:
        assert sum(report.calls.values()) == bending.model.seen
        assert report.feature_calls == sum(seen)
    assert str(report.feature_calls) in str(report).replace(",", "")
    again = fs.fit(bending, 3, pairs=12, loss=loss, optimizer=optimizer).report
    assert again.feature_calls == report.feature_calls


def test_the_record_names_the_features(bending, tmp_path):
    fitted = fs.fit(bending, 2, pairs=8, loss=Features(bent, "mse"), optimizer=GaussNewton(iterations=1))
    assert fitted.report.loss == "features(bent, mse)"
    assert Features(lambda x: x, name="edges").name == "features(edges, rmse)"
    fitted.solver.save(tmp_path / "solver.json")
    protocol = fs.Solver.load(tmp_path / "solver.json").protocol
    assert protocol["loss"] == "features(bent, mse)"
    assert protocol["feature_calls"] == fitted.report.feature_calls


def test_parts_of_the_pairs_keep_their_features(double_pairs, bending):
    pairs = prepared(Features(bent), double_pairs(bending, 6), bending)
    part = pairs[torch.tensor([4, 1])]
    assert isinstance(part, FeaturePairs)
    torch.testing.assert_close(part.features, bent(part.x1))


@pytest.mark.parametrize(
    ("phi", "words"),
    [
        ("lpips", "phi must be a function of a batch of samples, not 'lpips'"),
        (lambda x: x.mean(), r"one row a sample, not \(\) for 10 samples"),
        (lambda x: x[:3], r"one row a sample, not \(3, 3\) for 10 samples"),
        (lambda x: [x, x], r"one row a sample, not list for 10 samples"),
    ],
)
def test_a_map_that_is_none_is_refused(bending, phi, words):
    x0 = fs.noise(10, (3,))
    with pytest.raises(ValueError, match=words):
        fs.fit(bending, 2, pairs=fs.Pairs(x0, x0), loss=Features(phi))


def test_features_without_forward_mode_are_refused(bending):
    with pytest.raises(ValueError, match=r"leaving_torch.* which phi does not give; use jacobian='diff"):
        fs.fit(bending, 2, pairs=8, loss=Features(leaving_torch), optimizer=JVP)


def test_features_that_leave_autograd_are_not_taken_for_constant(bending):
    loss = Features(lambda x: bent(x.detach()), name="detached")
    with pytest.raises(
        ValueError, match=r"features\(detached, rmse\): .* gives wrongly, .* use jacobian='diff"
    ):
        fs.fit(bending, 2, pairs=8, loss=loss, optimizer=JVP)


def test_an_unknown_loss_of_features_is_refused():
    with pytest.raises(ValueError, match=r"Features: loss must be one of mse, .*, not 'bound'"):
        Features(bent, "bound")
    assert Features(bent, ENDPOINT_LOSSES["mse"]).name == "features(bent, mse)"
