import copy

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary
from fewstep.fitting import ENDPOINT_LOSSES, GaussNewton
from fewstep.fitting._jacobian import Differences
from fewstep.fitting._perturbations import LARGEST, SMALLEST, Perturbations, _variances, measure
from fewstep.fitting._residuals import Residuals
from fewstep.fitting._rollout import Rollout

MEMORY = GaussNewton().memory


def column(value):
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("noise", [1e-4, 1e-3])
def test_the_step_has_the_least_error_of_real_differences(central, noise):
    """Difference quotients of f(x) = c x^2 / 2 + d x^3 / 6 at 0, with Gaussian noise on every value."""
    second, third = (30.0, 0.6) if central else (0.3, 0.3)
    slope = 1e-3 if central else 50 * (2**0.5 * noise * second) ** 0.5  # forward is off by 2%
    step, twice = Perturbations.balanced(column(slope), column(second), column(third), column(noise))
    assert bool(twice) is central
    h = torch.logspace(-4, -0.3, 400, dtype=torch.float64)[:, None]
    draws = noise * torch.randn(2, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up, down = (second * x**2 / 2 + third * x**3 / 6 for x in (h, -h))
    wrong = (up - down + draws[0] - draws[1]) / (2 * h) if central else (up + draws[0] - draws[1]) / h
    error = wrong.square().mean(1).sqrt()
    at = int((h[:, 0] - step).abs().argmin())
    assert error[at] < 1.1 * error.min()


def test_a_step_is_no_larger_than_noise_asks_for():
    """A column without curvature on the probed pairs could have any step, but takes a modest one."""
    none, noise = column(0.0), column(1e-6)
    step, twice = Perturbations.balanced(column(1.0), none, none, noise)
    assert not twice
    assert float(step) == pytest.approx(2**0.5 * 1e-6 / 0.01)
    step, _ = Perturbations.balanced(none, none, none, noise)
    assert float(step) == LARGEST
    step, _ = Perturbations.balanced(column(1.0), none, none, 0 * noise)
    assert float(step) == SMALLEST


def test_what_is_not_finite_falls_back_to_a_plain_forward_difference():
    step, twice = Perturbations.balanced(*(column(torch.nan) for _ in range(4)))
    assert float(step) == 1e-3
    assert not twice


def test_differences_of_five_values_give_noise_and_derivatives():
    h, noise = 0.02, 1e-3
    generator = torch.Generator().manual_seed(0)
    values = noise * torch.randn(5, 2, 9, 5000, dtype=torch.float64, generator=generator)
    x = h * torch.arange(-2.0, 3.0, dtype=torch.float64)
    smooth = torch.stack([5 * x, 3000 * x**2 / 2 + 60_000 * x**3 / 6], dim=1)
    values += smooth[:, :, None, None]
    base = values[2]
    sizes = _variances(values[[0, 1, 3, 4]] - base)
    assert sizes[0].sqrt().tolist() == pytest.approx([noise, noise], rel=0.05)
    for row, scale, factor, expected in [
        (1, 4 * h, 2, [5, 60_000 * h**2 * 4 / 6]),
        (2, 4 * h**2, 6, [0, 3000]),
        (3, 2 * h**3, 10, [0, 60_000]),
    ]:
        found = (sizes[row] - factor * noise**2).clamp(min=0).sqrt() / scale
        tolerance = 0.4 * factor**0.5 * noise / scale  # a few percent of the noise's own variance
        torch.testing.assert_close(
            found, torch.tensor(expected, dtype=torch.float64), rtol=0.05, atol=tolerance
        )


def test_probing_costs_four_rollouts_a_parameter_on_four_pairs_where_noise_is_low(bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 6)
    rollout, before = Rollout(bending, 4096), bending.model.seen
    measure(
        Residuals(rollout, family, ENDPOINT_LOSSES["rmse"]),
        torch.zeros(family.size, dtype=torch.float64),
        pairs,
    )
    # Rows 1, 2, 3 have 2, 3, 4 entries and move 2, 1, 0 calls; both times move 2.
    assert rollout.calls == bending.model.seen - before == 4 * (3 + 4 * (2 * 2 + 3 * 1 + 2 * 2))


@pytest.fixture(scope="module")
def digits():
    """The flow on digits in float32 and in bfloat16, with pairs of the former."""
    exact = fs.models.bundled("digits")
    network = copy.deepcopy(exact.model).bfloat16()
    coarse = fs.Field(lambda x, t: network(x.bfloat16(), t).float(), shape=exact.shape, name="bfloat16")
    return exact, coarse, fs.reference.pairs(exact, fs.noise(88, exact.shape, seed=77))


def test_a_bfloat16_network_gets_larger_steps(digits):
    exact, coarse, pairs = digits
    family = NonStationary(fs.classical.adams_bashforth(2, 4))
    theta = torch.zeros(family.size, dtype=torch.float64)
    fine, rough = (
        measure(Residuals(Rollout(field, 4096), family, ENDPOINT_LOSSES["rmse"]), theta, pairs)
        for field in (exact, coarse)
    )
    assert rough.step.median() > 100 * fine.step.median()
    assert rough.central.any()


def test_a_bfloat16_network_is_fitted_nearly_as_well(digits, run):
    """And better than with the fixed step that serves float32."""
    exact, coarse, pairs = digits
    family = NonStationary(fs.classical.adams_bashforth(2, 4))
    errors = []
    for field, options in [(exact, {}), (coarse, {}), (coarse, {"step": 1e-3})]:
        iterates, rollout = run(field, family, pairs[:24], iterations=8, **options)
        table = family.table(iterates[-1].theta).unroll()
        errors.append(float(rollout.squared_error(table, pairs[24:]).sqrt().mean()))
    assert errors[1] < 1.15 * errors[0]
    assert errors[1] < 0.85 * errors[2]


@pytest.mark.parametrize("noise", [1e-5, 1e-3])
def test_measured_steps_are_about_the_best(noise):
    """A network with noise of a known size: no fixed step gives a much better Jacobian."""

    def smooth(x, t):
        return 0.9 * torch.sin(2 * x.roll(1, dims=1) + 2 * t[:, None])

    def noisy(x, t):
        return smooth(x, t) + noise * 2**0.5 * torch.sin(1e8 * x)

    family, x0 = NonStationary(fs.classical.euler(4)), fs.noise(64, (16,), dtype=torch.float64)
    theta, pairs = torch.zeros(family.size, dtype=torch.float64), fs.Pairs(x0, x0)
    exact = torch.autograd.functional.jacobian(
        lambda free: Rollout(fs.Field(smooth), 4096).endpoint(family.table(free).unroll(), pairs), theta
    ).movedim(-1, 0)
    field, errors = fs.Field(noisy), []
    for step in (None, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3):
        columns, _ = Differences(Residuals(Rollout(field, 4096), family), MEMORY, step).at(theta, pairs)
        with torch.no_grad():
            errors.append(float((columns(pairs)[1] - exact).norm() / exact.norm()))
    assert errors[0] < 1.5 * min(errors[1:])
    assert errors[0] < 0.2 * max(errors[1:])
    # Central differences are for noise that forward ones cannot do with; a few columns are tiny.
    share = (
        measure(Residuals(Rollout(field, 4096), family, ENDPOINT_LOSSES["rmse"]), theta, pairs)
        .central.double()
        .mean()
    )
    assert share < 0.2 if noise == 1e-5 else share > 0.5
