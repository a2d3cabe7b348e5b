import math

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES, bound_weights, local_errors, pseudo_huber
from fewstep.fitting._dense import DensePath, dense_path
from fewstep.fitting.losses._paths import check_one_step


@pytest.mark.parametrize("name", ENDPOINT_LOSSES)
def test_slope_is_the_derivative_of_rho(name):
    loss = ENDPOINT_LOSSES[name]
    mse = torch.tensor([1e-9, 1e-4, 0.3, 7.0], dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(loss.rho(mse).sum(), mse)
    torch.testing.assert_close(loss.slope(mse.detach()), derivative, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", 2.5),
        ("rmse", 1.5),
        ("log_mse", math.log(4) / 2),
        ("pseudo_huber", (math.sqrt(1 + 0.00054**2) + math.sqrt(4 + 0.00054**2)) / 2 - 0.00054),
    ],
)
def test_losses_by_hand(name, expected):
    mse = torch.tensor([1.0, 4.0], dtype=torch.float64)
    assert float(ENDPOINT_LOSSES[name](mse)) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("name", ENDPOINT_LOSSES)
def test_losses_of_an_exact_sample_are_finite(name):
    loss = ENDPOINT_LOSSES[name]
    zero = torch.zeros(2, dtype=torch.float64)
    assert math.isfinite(float(loss(zero)))
    assert torch.isfinite(loss.slope(zero)).all()


@pytest.mark.parametrize("d", [1, 12, 3072])
def test_pseudo_huber_is_that_of_the_norm(d):
    """Song and Dhariwal: sqrt(|x - y|^2 + C^2) - C with C = 0.00054 sqrt(d); here over sqrt(d)."""
    x, y = (fs.noise(6, (d,), seed=seed, dtype=torch.float64) for seed in (0, 1))
    y = x + y * torch.logspace(-6, 0, 6, dtype=torch.float64)[:, None]
    big = 0.00054 * math.sqrt(d)
    norm = torch.linalg.vector_norm(x - y, dim=1)
    expected = ((norm.square() + big**2).sqrt() - big).mean() / math.sqrt(d)
    torch.testing.assert_close(ENDPOINT_LOSSES["pseudo_huber"](fs.metrics.per_sample_mse(x, y)), expected)


def test_pseudo_huber_is_the_rmse_above_c_and_half_a_square_below():
    loss = pseudo_huber(0.1)
    assert float(loss(torch.tensor([100.0**2]))) == pytest.approx(100 - 0.1, rel=1e-5)
    assert float(loss(torch.tensor([0.001**2], dtype=torch.float64))) == pytest.approx(
        0.001**2 / 0.2, rel=1e-3
    )
    assert loss.name == "pseudo_huber(c=0.1)"
    assert pseudo_huber(0.00054).name == "pseudo_huber"


@pytest.mark.parametrize("c", [0.0, -1.0, math.inf, math.nan])
def test_pseudo_huber_needs_a_scale(c):
    with pytest.raises(ValueError, match=r"pseudo_huber: c must be positive, .* not"):
        pseudo_huber(c)


def test_bound_weights_of_three_euler_steps_by_hand(random_theta):
    family, lipschitz, h = ScaleTime("euler", 3), 1.7, 1 / 3
    theta = random_theta(family, 0.4)
    _, dt, s, ds = (part.tolist() for part in family.nodes(theta))

    def step(j):
        return s[j] / s[j + 1] * (1 + h * (abs(ds[j]) / s[j] + dt[j] * lipschitz))

    expected = torch.tensor([step(1) * step(2), step(2), 1.0], dtype=torch.float64)
    torch.testing.assert_close(bound_weights(family, theta, lipschitz), expected, rtol=1e-12, atol=0)


def test_bound_weights_of_three_midpoint_steps_by_hand(random_theta):
    """Nodes 0 .. 6 are the points 0, 1, 2, 3 at even places and the midpoints between them."""
    family, lipschitz, h = ScaleTime("midpoint", 3), 0.6, 1 / 3
    theta = random_theta(family, 0.4, seed=1)
    _, dt, s, ds = (part.tolist() for part in family.nodes(theta))
    lbar = [abs(ds[k]) / s[k] + dt[k] * lipschitz for k in range(6)]
    l1 = s[2] / s[4] * (1 + h * lbar[3] * (1 + h / 2 * lbar[2]))
    l2 = s[4] / s[6] * (1 + h * lbar[5] * (1 + h / 2 * lbar[4]))
    expected = torch.tensor([l1 * l2, l2, 1.0], dtype=torch.float64)
    torch.testing.assert_close(bound_weights(family, theta, lipschitz), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("base", "growth"), [("euler", lambda h: 1 + h), ("midpoint", lambda h: 1 + h * (1 + h / 2))]
)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_bound_weights_of_the_plain_solver_are_powers(base, growth, n):
    family = ScaleTime(base, n)
    weights = bound_weights(family, torch.zeros(family.size, dtype=torch.float64))
    expected = [growth(1 / n) ** (n - i) for i in range(1, n + 1)]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("base", ["heun", "ralston", "rk4"])
def test_the_bound_of_another_base_is_refused(base):
    family = ScaleTime(base, 2)
    with pytest.raises(ValueError, match=rf"euler and midpoint, not '{base}'; use loss='local'"):
        bound_weights(family, torch.zeros(family.size, dtype=torch.float64))


def test_check_one_step_refuses_a_table_that_reads_older_calls():
    solver = fs.classical.adams_bashforth(2, 4)
    with pytest.raises(ValueError, match=r"needs a one-step solver.*family='scale_time'"):
        check_one_step(solver.table, solver.points)


def test_check_one_step_refuses_steps_of_unequal_length():
    table = fs.classical.midpoint(2).table
    with pytest.raises(ValueError, match="one-step solver"):
        check_one_step(table, (0, 1, 4))


def test_check_one_step_refuses_a_random_non_stationary_table(random_theta):
    family = NonStationary(fs.classical.euler(3))
    with pytest.raises(ValueError, match="one-step solver"):
        check_one_step(family.table(random_theta(family)), family.points)


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4"])
def test_check_one_step_accepts_every_scale_time_table(name, random_theta):
    family = ScaleTime(name, 3)
    check_one_step(family.table(random_theta(family)), family.points)


def velocity_of(field):
    return lambda x, t: field(x, t)


@pytest.mark.parametrize(("base", "n"), [("euler", 4), ("midpoint", 3)])
def test_local_errors_of_the_plain_solver_are_those_of_single_steps(mixture, double_pairs, base, n):
    """Each step starts on the reference and is taken by hand."""
    field, family = mixture, ScaleTime(base, n)
    pairs = double_pairs(field, 6)
    grid = [i / n for i in range(n + 1)]
    x = fs.reference.solve(field, pairs.x0, times=grid, rtol=1e-10, atol=1e-10).states
    h, expected = 1 / n, []
    for i in range(n):
        if base == "euler":
            end = x[i] + h * field(x[i], grid[i])
        else:
            middle = x[i] + h / 2 * field(x[i], grid[i])
            end = x[i] + h * field(middle, grid[i] + h / 2)
        expected.append((end - x[i + 1]).square().mean(1).sqrt().mean())
    path, _ = dense_path(field, pairs, rtol=1e-10, atol=1e-10)
    theta = torch.zeros(family.size, dtype=torch.float64)
    errors = local_errors(velocity_of(field), family.table(theta), family.points, path)
    torch.testing.assert_close(errors, torch.stack(expected), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("base", ["euler", "midpoint"])
@pytest.mark.parametrize("size", [0.0, 0.1, 0.3])
def test_the_bound_bounds_the_endpoint_error(bending, double_pairs, random_theta, base, size):
    """The field's Lipschitz constant is 0.9 < 1, so sum M_i d_i is at least the mean RMSE at the end."""
    family, pairs = ScaleTime(base, 4), double_pairs(bending, 16)
    path, _ = dense_path(bending, pairs, rtol=1e-10, atol=1e-10)
    for seed in range(5):
        theta = random_theta(family, size, seed)
        errors = local_errors(velocity_of(bending), family.table(theta), family.points, path)
        bound = float((bound_weights(family, theta) * errors).sum())
        endpoint = float(fs.metrics.rmse(family.solver(theta).sample(bending, pairs.x0), pairs.x1))
        assert endpoint <= bound
        assert bound < 100 * endpoint


def test_local_errors_stay_on_the_device_of_the_path(random_theta):
    """The meta device stands for any that is not the processor; tables stay on that."""
    field, family = fs.Field(lambda x, t: x * t[:, None], shape=(3,)), ScaleTime("midpoint", 2)
    states = torch.empty(9, 5, 3, device="meta")
    path = DensePath(torch.linspace(0, 1, 9, dtype=torch.float64), states, states)
    table = family.table(random_theta(family))
    errors = local_errors(velocity_of(field), table, family.points, path)
    assert errors.device == states.device
    assert errors.shape == (2,)
