"""Fits of offsets and of numbers that each channel has for itself."""

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting._dense import dense_path
from fewstep.fitting.losses import bound_weights, local_errors

RATES, SHIFTS = torch.tensor([[-1.0, 0.3, 1.2], [2.0, 0.0, -1.0]])


@pytest.fixture
def channelwise():
    """``dx/dt = rate x + shift``, with a rate and a shift of each channel."""

    def velocity(x, t):
        rate, shift = (part.to(x)[:, None] for part in (RATES, SHIFTS))
        return rate * x + shift

    return fs.Field(velocity, shape=(3, 4), name="channelwise")


@pytest.fixture
def pairs(channelwise):
    return fs.reference.pairs(channelwise, fs.noise(24, (3, 4)), rtol=1e-6, atol=1e-6)


FAMILIES = {
    "non_stationary": lambda **options: NonStationary(fs.classical.euler(2), **options),
    "scale_time": lambda **options: ScaleTime("ab2", 2, **options),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "options", [{}, {"jacobian": "jvp"}, {"optimizer": "adam", "iterations": 150}], ids=str
)
def test_what_only_channels_and_offsets_can_do_is_found(channelwise, pairs, name, options):
    make = FAMILIES[name]
    errors = {}
    for key, own in {"shared": {}, "own": {"offset": True, "channels": 3}}.items():
        fitted = fs.fit(channelwise, 2, family=make(**own), pairs=pairs, baselines=False, **options)
        errors[key] = fitted.report.errors["fitted"]
        assert fitted.solver.nfe == 2
        x1 = fitted.solver.sample(channelwise, pairs.x0)
        assert float(fs.metrics.rmse(x1, pairs.x1)) == pytest.approx(errors[key], rel=1, abs=1e-4)
    assert errors["own"] < 0.2 * errors["shared"]
    assert fitted.solver.channels == 3
    assert len(fitted.solver.offsets) == 2


def test_a_fitted_solver_with_channels_comes_back_from_its_file(channelwise, pairs, tmp_path):
    family = FAMILIES["non_stationary"](offset=True, channels=3)
    solver = fs.fit(channelwise, 2, family=family, pairs=pairs, iterations=2).solver
    solver.save(tmp_path / "solver.json")
    loaded = fs.Solver.load(tmp_path / "solver.json")
    assert (loaded.C, loaded.D, loaded.offsets) == (solver.C, solver.D, solver.offsets)
    assert torch.equal(loaded.sample(channelwise, pairs.x0), solver.sample(channelwise, pairs.x0))
    assert (loaded.family["offset"], loaded.family["channels"]) == (True, 3)
    theta = torch.tensor(loaded.family["theta"], dtype=torch.float64)
    assert family.solver(theta).C == loaded.C


def test_another_number_of_channels_is_refused_before_anything_is_called(channelwise, counting):
    network = counting(channelwise.model)
    field = fs.Field(network, shape=(3, 4))
    family = FAMILIES["scale_time"](channels=2)
    with pytest.raises(ValueError, match=r"each of 2 channels, but the field samples shape \(3, 4\); make"):
        fs.fit(field, 2, family=family, pairs=8)
    assert network.seen == 0


@pytest.mark.parametrize("base", ["euler", "midpoint"])
def test_local_errors_are_those_of_single_steps(channelwise, double_pairs, random_theta, base):
    """Each step by its channel's numbers, from the reference."""
    family, pairs = ScaleTime(base, 3, offset=True, channels=3), double_pairs(channelwise, 5)
    path, _ = dense_path(channelwise, pairs, rtol=1e-10, atol=1e-10)
    table = family.table(random_theta(family))
    errors = local_errors(lambda x, t: channelwise(x, t), table, family.points, path)
    at = torch.cat([table.times, torch.ones(1, dtype=torch.float64)])
    expected = []
    for first, last in zip(family.points, family.points[1:], strict=False):
        x, u = [path.at(at[first : first + 1])[0]], []
        for i in range(first, last):
            u.append(channelwise(x[-1], float(at[i])))
            C, D, e = table.C[i, first : i + 1], table.D[i, first : i + 1], table.e[i]
            parts = zip((*C, *D), (*x, *u), strict=True)
            x.append(sum(c[:, None] * y for c, y in parts) + e[:, None])
        error = (x[-1] - path.at(at[last : last + 1])[0]).flatten(1).square().mean(1)
        expected.append((error + 1e-12).sqrt().mean())
    torch.testing.assert_close(errors, torch.stack(expected), rtol=1e-8, atol=1e-10)


def test_path_losses_fit_offsets(channelwise, pairs):
    options = {"pairs": pairs, "optimizer": "adam", "iterations": 60, "baselines": False}
    families = {
        "local": ScaleTime("euler", 2, offset=True, channels=3),
        "bound": ScaleTime("euler", 2, offset=True),
    }
    for loss, family in families.items():
        errors = fs.fit(channelwise, 2, family=family, loss=loss, **options).report.errors
        assert errors["fitted"] < errors["start"]


def test_the_bound_does_not_mind_offsets_and_knows_no_channels(random_theta):
    family, plain = ScaleTime("midpoint", 3, offset=True), ScaleTime("midpoint", 3)
    theta = random_theta(family)
    assert torch.equal(bound_weights(family, theta), bound_weights(plain, theta[: plain.size]))
    family = ScaleTime("midpoint", 3, channels=2)
    with pytest.raises(ValueError, match=r"one scale that all channels share, not for channels=2; use loss="):
        bound_weights(family, random_theta(family))
