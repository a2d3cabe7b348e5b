import pytest
import torch
from torch.autograd.functional import jacobian

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting._rollout import Rollout, chunks

FAMILIES = {
    "non_stationary": lambda: NonStationary(fs.classical.adams_bashforth(2, 4)),
    "non_stationary_from_midpoint": lambda: NonStationary(fs.classical.midpoint(2)),
    "scale_time_rk2": lambda: ScaleTime("midpoint", 2),
    "scale_time_rk1": lambda: ScaleTime("euler", 3),
    "scale_time_heun": lambda: ScaleTime("heun", 2),
}
STEP = 1e-3


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]()


def perturbed_thetas(theta):
    return [theta + STEP * unit for unit in torch.eye(len(theta), dtype=torch.float64)]


def table_of(family, theta):
    return family.table(theta).unroll()


def brute_force(family, theta, field, x0, **conditions):
    """Full samplings, one a parameter, by the sampler that users call."""
    base = family.solver(theta).sample(field, x0, **conditions)
    moved = [family.solver(other).sample(field, x0, **conditions) for other in perturbed_thetas(theta)]
    return base, torch.stack(moved) - base


def unit_pairs(field, count=5, **given):
    x0 = fs.noise(count, field.shape, dtype=torch.float64)
    return fs.Pairs(x0, torch.zeros_like(x0), **given)


def test_endpoint_is_what_the_solver_samples(family, bending, random_theta):
    theta, pairs = random_theta(family), unit_pairs(bending)
    end = Rollout(bending, 100).endpoint(table_of(family, theta), pairs)
    torch.testing.assert_close(end, family.solver(theta).sample(bending, pairs.x0), rtol=1e-12, atol=1e-12)


def test_endpoint_in_float32_is_what_the_solver_samples(family, bending, random_theta):
    theta, x0 = random_theta(family), fs.noise(5, (3,))
    end = Rollout(bending, 100).endpoint(table_of(family, theta), fs.Pairs(x0, x0))
    assert end.dtype == torch.float32
    torch.testing.assert_close(end, family.solver(theta).sample(bending, x0), rtol=1e-5, atol=1e-5)


def test_endpoint_starts_from_the_fields_initial_state(family):
    field = fs.Field(lambda x, t: -x, schedule=fs.schedules.VE(sigma_max=3.0), shape=(2,))
    pairs = unit_pairs(field)
    theta = torch.zeros(family.size, dtype=torch.float64)
    end = Rollout(field, 100).endpoint(table_of(family, theta), pairs)
    torch.testing.assert_close(end, family.solver(theta).sample(field, pairs.x0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_batch", [1, 5, 12, 10_000])
def test_differences_are_those_of_full_perturbed_rollouts(family, bending, random_theta, max_batch):
    theta, pairs = random_theta(family), unit_pairs(bending)
    end, moved = Rollout(bending, max_batch).differences(
        table_of(family, theta), [table_of(family, other) for other in perturbed_thetas(theta)], pairs
    )
    base, expected = brute_force(family, theta, bending, pairs.x0)
    torch.testing.assert_close(end, base, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)
    assert (moved.flatten(1).abs().amax(1) > 0).sum() > family.size // 2


def conditional(x, t, shift, matrix):
    return torch.tanh(x @ matrix + shift + t[:, None])


@pytest.fixture
def conditional_field():
    return fs.Field(conditional, shape=(3,), name="conditional")


def conditions(count=5):
    generator = torch.Generator().manual_seed(1)
    draw = {"dtype": torch.float64, "generator": generator}
    shared = {"matrix": torch.randn(3, 3, **draw)}
    return {"conditions": shared, "per_sample": {"shift": torch.randn(count, 3, **draw)}}


@pytest.mark.parametrize("max_batch", [5, 11, 10_000])
def test_differences_give_each_sample_its_own_condition_and_all_the_shared_one(
    family, conditional_field, random_theta, max_batch
):
    theta, given = random_theta(family), conditions()
    pairs = unit_pairs(conditional_field, **given)
    _, moved = Rollout(conditional_field, max_batch).differences(
        table_of(family, theta), [table_of(family, other) for other in perturbed_thetas(theta)], pairs
    )
    _, expected = brute_force(
        family, theta, conditional_field, pairs.x0, **given["conditions"], **given["per_sample"]
    )
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_shared_tensor_is_never_indexed_even_where_a_chunk_has_its_length(conditional_field, size):
    """The matrix has three rows; so has a chunk of three pairs."""
    family, given = NonStationary(fs.classical.euler(3)), conditions()
    theta = torch.zeros(family.size, dtype=torch.float64)
    pairs = unit_pairs(conditional_field, **given)
    tables = [table_of(family, other) for other in perturbed_thetas(theta)]
    rollout = Rollout(conditional_field, 100)
    parts = [rollout.differences(table_of(family, theta), tables, part)[1] for part in chunks(pairs, size)]
    _, expected = brute_force(
        family, theta, conditional_field, pairs.x0, **given["conditions"], **given["per_sample"]
    )
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("max_batch", [1, 7, 10_000])
def test_squared_error_is_the_mean_square_a_sample(family, bending, random_theta, max_batch):
    theta, pairs = random_theta(family), unit_pairs(bending)
    error = Rollout(bending, max_batch).squared_error(table_of(family, theta), pairs)
    x1 = family.solver(theta).sample(bending, pairs.x0)
    assert error.dtype == torch.float64
    torch.testing.assert_close(error, (x1**2).mean(1), rtol=1e-12, atol=0)


def test_every_network_call_is_counted(family, bending, random_theta):
    rollout, pairs = Rollout(bending, 7), unit_pairs(bending)
    theta = random_theta(family)
    table = table_of(family, theta)
    rollout.endpoint(table, pairs)
    assert rollout.calls == 5 * family.nfe
    rollout.squared_error(table, pairs)
    rollout.differences(table, [table_of(family, other) for other in perturbed_thetas(theta)], pairs)
    assert rollout.calls == bending.model.seen


def test_perturbing_the_last_row_costs_no_call(bending):
    family = NonStationary(fs.classical.euler(4))
    theta = torch.zeros(family.size, dtype=torch.float64)
    table = table_of(family, theta)
    b = table.b.clone()
    b[-1] += STEP
    others = [table._replace(b=b), table._replace(a=table.a + torch.tensor([0, 0, 0, STEP]))]
    rollout = Rollout(bending, 100)
    _, moved = rollout.differences(table, others, unit_pairs(bending))
    assert rollout.calls == bending.model.seen == 5 * 4
    assert (moved.abs().amax((1, 2)) > 0).all()


def test_a_perturbed_rollout_repeats_only_the_calls_that_changed(bending):
    """Row i is read by call i, so changing it costs the calls i .. N-1; a time j the calls j .. N-1."""
    family = NonStationary(fs.classical.euler(4))
    table = table_of(family, torch.zeros(family.size, dtype=torch.float64))
    times = table.times.clone()
    times[2] += STEP
    for other, cost in [
        (table._replace(a=table.a + torch.tensor([STEP, 0, 0, 0])), 3),
        (table._replace(a=table.a + torch.tensor([0, 0, STEP, 0])), 1),
        (table._replace(times=times), 2),
        (table, 0),
    ]:
        rollout = Rollout(bending, 100)
        rollout.differences(table, [other], unit_pairs(bending))
        assert rollout.calls == 5 * (4 + cost)


def test_differences_over_the_step_agree_with_autograd(family, bending, random_theta):
    theta, pairs, step = random_theta(family), unit_pairs(bending), 1e-6
    rollout = Rollout(bending, 100)
    exact = jacobian(lambda free: rollout.endpoint(table_of(family, free), pairs), theta)
    units = torch.eye(family.size, dtype=torch.float64)
    others = [table_of(family, theta + step * unit) for unit in units]
    _, moved = rollout.differences(table_of(family, theta), others, pairs)
    torch.testing.assert_close(moved / step, exact.movedim(-1, 0), rtol=1e-3, atol=1e-4)


def test_checkpointing_changes_no_gradient(family, bending, random_theta):
    rollout, pairs = Rollout(bending, 100), unit_pairs(bending)
    gradients = []
    for checkpointed in (False, True):
        theta = random_theta(family).requires_grad_()
        end = rollout.endpoint(table_of(family, theta), pairs, checkpointed=checkpointed)
        gradients += torch.autograd.grad(end.square().sum(), theta)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("free", ["times", "a", "b"])
def test_the_endpoint_is_differentiable_in_any_part_of_the_table(bending, free):
    table = fs.classical.euler(3).table.unroll()
    leaf = getattr(table, free).clone().requires_grad_()
    end = Rollout(bending, 100).endpoint(table._replace(**{free: leaf}), unit_pairs(bending))
    (gradient,) = torch.autograd.grad(end.sum(), leaf)
    assert gradient.abs().max() > 0


def test_chunks_are_all_the_pairs_in_order():
    pairs = fs.Pairs(torch.arange(7.0)[:, None], torch.arange(7.0)[:, None])
    parts = list(chunks(pairs, 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.x0 for part in parts]), pairs.x0)


def test_everything_stays_on_the_device_of_the_pairs(family, random_theta):
    """The meta device stands for any that is not the processor: mixing the two is an error."""
    field = fs.Field(lambda x, t: x * t[:, None], shape=(3,))
    x0 = torch.empty(5, 3, device="meta")
    pairs, theta = fs.Pairs(x0, x0), random_theta(family)
    rollout, table = Rollout(field, 7), table_of(family, theta)
    end, moved = rollout.differences(table, [table_of(family, t) for t in perturbed_thetas(theta)], pairs)
    assert rollout.endpoint(table, pairs).device == end.device == moved.device == x0.device
    assert rollout.squared_error(table, pairs).device == x0.device
