import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES, GaussNewton
from fewstep.fitting._gauss_newton import gauss_newton
from fewstep.fitting._jacobian import Differences, Tangents
from fewstep.fitting._perturbations import Perturbations
from fewstep.fitting._residuals import Residuals
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._task import Task

RMSE, MEMORY = ENDPOINT_LOSSES["rmse"], GaussNewton().memory
FAMILIES = {
    "non_stationary": lambda: NonStationary(fs.classical.adams_bashforth(2, 4)),
    "scale_time_rk1": lambda: ScaleTime("euler", 3),
    "scale_time_rk2": lambda: ScaleTime("midpoint", 2),
    "scale_time_ab2": lambda: ScaleTime("ab2", 3),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]()


def tangents(field, family, theta, pairs, max_batch=4096, memory=MEMORY):
    columns, within = Tangents(Residuals(Rollout(field, max_batch), family), memory).at(theta, pairs)
    assert within.pairs >= len(pairs)
    with torch.no_grad():
        return columns(pairs)


def central(field, family, theta, pairs, h=1e-5):
    rollout, columns = Rollout(field, 4096), []
    for unit in torch.eye(family.size, dtype=torch.float64):
        up, down = (rollout.endpoint(family.table(theta + s * h * unit).unroll(), pairs) for s in (1, -1))
        columns.append((up - down) / (2 * h))
    return torch.stack(columns)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)], ids=str)
def test_both_ways_are_what_autograd_says(family, random_theta, shape):
    """Through the differentiable endpoint, on a field that mixes the channels."""
    field = fs.Field(
        lambda x, t: torch.sin(x.roll(1, dims=1) + 2 * t.reshape(-1, *[1] * len(shape))), shape=shape
    )
    x0 = fs.noise(4, shape, dtype=torch.float64)
    theta, pairs = random_theta(family), fs.Pairs(x0, torch.zeros_like(x0))  # residuals are endpoints

    def endpoint(free):
        return Rollout(field, 99).endpoint(family.table(free).unroll(), pairs)

    expected = torch.autograd.functional.jacobian(endpoint, theta).movedim(-1, 0)
    assert bool((expected.flatten(1).abs().amax(1) > 1e-9).all())
    end, J = tangents(field, family, theta, pairs)
    torch.testing.assert_close(end, family.solver(theta).sample(field, x0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(J, expected, rtol=1e-9, atol=1e-11)
    end, J = Differences(Residuals(Rollout(field, 99), family), MEMORY, step=1e-7).at(theta, pairs)[0](pairs)
    torch.testing.assert_close(end, family.solver(theta).sample(field, x0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(J, expected, rtol=1e-5, atol=1e-5)


def wave(x, t, shift):
    return torch.cos(2 * x.roll(1, dims=1) + shift) * (1 + t[:, None])


@pytest.mark.parametrize("prediction", ["velocity", "v"])
def test_jvp_is_exact(family, random_theta, prediction):
    shift = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = fs.Field(wave, fs.schedules.Cosine(), prediction, shape=(3,), name="wave")
    x0 = fs.noise(5, (3,), dtype=torch.float64)
    pairs, theta = fs.Pairs(x0, x0, per_sample={"shift": shift}), random_theta(family)
    residual, J = tangents(field, family, theta, pairs)
    torch.testing.assert_close(residual + pairs.x1, family.solver(theta).sample(field, x0, shift=shift))
    torch.testing.assert_close(J, central(field, family, theta, pairs), rtol=1e-6, atol=1e-7)


class Sine(torch.autograd.Function):
    """A sine that knows its forward-mode derivative, and nothing of vmap."""

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, dx):
        (x,) = ctx.saved_tensors
        return x.cos() * dx


class Mute(Sine):
    """A sine without any derivative."""

    jvp = staticmethod(torch.autograd.Function.jvp)


class Wrong(Sine):
    """A sine that claims to be constant, as one does that leaves autograd for a while."""

    @staticmethod
    def jvp(ctx, dx):
        return torch.zeros_like(dx)


def through(function):
    return fs.Field(lambda x, t: function.apply(2 * x + t[:, None]), shape=(3,))


def test_jvp_goes_one_by_one_where_the_network_knows_no_vmap(random_theta):
    family, x0 = NonStationary(fs.classical.euler(3)), fs.noise(4, (3,), dtype=torch.float64)
    field, pairs, theta = through(Sine), fs.Pairs(x0, x0), random_theta(family)
    ways = Tangents(Residuals(Rollout(field, 99), family), MEMORY)
    with torch.no_grad():
        _, J = ways.at(theta, pairs)[0](pairs)
    assert ways.batched is False
    torch.testing.assert_close(J, central(field, family, theta, pairs), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("field", "word"),
    [
        (through(Mute), "does not give"),
        (fs.Field(lambda x, t: torch.from_numpy(x.numpy()), shape=(3,)), "does not give"),
        (fs.Field(lambda x, t: torch.tensor((2 * x).tolist(), dtype=x.dtype), shape=(3,)), "network"),
        (through(Wrong), "gives wrongly"),
    ],
    ids=["no derivative", "numpy", "lists", "wrong"],
)
def test_a_network_without_forward_mode_is_refused(linearised, field, word):
    x0 = fs.noise(4, (3,), dtype=torch.float64)
    family = NonStationary(fs.classical.euler(2))
    task = linearised(Rollout(field, 99), family, fs.Pairs(x0, x0), jacobian="jvp")
    theta = torch.zeros(family.size, dtype=torch.float64)
    task.loss(theta)
    with pytest.raises(ValueError, match=f"jacobian='jvp'.*{word}.*jacobian='differences'"):
        task.normal_equations(theta)


def test_a_derivative_counts_as_two_calls(bending, random_theta):
    """Calls before the first that moves are free: rows 1, 2, 3 of 3 move 2, 1, 0; both times 2."""
    family, x0 = NonStationary(fs.classical.euler(3)), fs.noise(5, (3,), dtype=torch.float64)
    pairs, rollout = fs.Pairs(x0, x0), Rollout(bending, 99)
    ways = Tangents(Residuals(rollout, family), MEMORY)
    ways.at(random_theta(family), pairs)
    assert rollout.calls == 4  # one derivative to try, and a central difference to hold it against
    before, (columns, _) = rollout.calls, ways.at(random_theta(family), pairs)
    with torch.no_grad():
        columns(pairs)
    assert rollout.calls - before == 5 * (3 + 2 * (2 * 2 + 3 * 1 + 2 * 2))


@pytest.mark.parametrize("jacobian", ["differences", "jvp"])
def test_a_budget_holds_for_derivatives_too(bending, double_pairs, jacobian):
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 8)
    rollout = Rollout(bending, 99, limit=150)
    with pytest.raises(RuntimeError):
        list(gauss_newton([Task(rollout, family.member(), pairs)], RMSE, GaussNewton(5, jacobian)))
    assert rollout.calls <= 150


@pytest.mark.parametrize("jacobian", ["differences", "jvp"])
def test_a_tiny_cap_changes_nothing_but_memory(linearised, bending, double_pairs, family, jacobian):
    pairs = double_pairs(bending, 4)
    systems = []
    for memory in (1, 2500, MEMORY):
        task = linearised(Rollout(bending, 4096), family, pairs, jacobian=jacobian, memory=memory)
        systems.append(task.normal_equations(torch.zeros(family.size, dtype=torch.float64)))
    for A, g in systems[:2]:
        torch.testing.assert_close(A, systems[2][0], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(g, systems[2][1], rtol=1e-9, atol=1e-13)


class Peak(TorchDispatchMode):
    """Bytes of the tensors that were alive at once, of those made under it."""

    def __init__(self):
        super().__init__()
        self.live, self.most, self.known = 0, 0, weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_flatten((args, kwargs))[0] if is_tensor(t)}
        for tensor in tree_flatten(result)[0]:
            if is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in given:
                storage = tensor.untyped_storage()
                if storage not in self.known:
                    self.known[storage] = None
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self.free, storage.nbytes())
                    self.most = max(self.most, self.live)
        return result

    def free(self, size):
        self.live -= size


def is_tensor(value):
    return isinstance(value, torch.Tensor)


@pytest.mark.parametrize(("nfe", "memory"), [(2, 2**20), (6, 2**22), (6, 2**23)])
def test_memory_stays_under_the_cap(linearised, memory, nfe):
    """A network that needs one tensor like its input; the whole Jacobian is larger than the caps."""
    field = fs.Field(lambda x, t: x.neg(), shape=(2048,))
    x0 = fs.noise(48, (2048,))
    pairs, family = fs.Pairs(x0, x0 * math.exp(-1)), NonStationary(fs.classical.euler(nfe))
    task = linearised(Rollout(field, 4096), family, pairs, memory=memory, step=1e-3, reuse=1)
    with Peak() as peak:
        task.normal_equations(torch.zeros(family.size, dtype=torch.float64))
    assert memory / 8 < peak.most < memory


def test_room_is_one_pair_and_one_perturbation_at_least():
    x0, family = torch.zeros(1, 3, 32, 32), NonStationary(fs.classical.euler(8))
    residuals = Residuals(Rollout(fs.Field(torch.mul), 4096), family)
    assert residuals.room(1, 50, fs.Pairs(x0, x0)) == (1, 1)
    assert residuals.room(2**40, 50, fs.Pairs(x0, x0)) == (4096, 1)


def test_minibatches_are_all_that_an_iteration_sees(bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(3)), double_pairs(bending, 64)
    rollout = Rollout(bending, 4096)
    settings = GaussNewton(12, "differences", step=1e-4, minibatch=6)
    costs, calls = [], 0
    for iterate in gauss_newton([Task(rollout, family.member(), pairs)], RMSE, settings):
        costs.append(rollout.calls - calls)
        calls = rollout.calls
        last = iterate
    whole = float(rollout.squared_error(family.table(last.theta).unroll(), pairs).sqrt().mean())
    start = float(rollout.squared_error(family.table(0 * last.theta).unroll(), pairs).sqrt().mean())
    assert costs[0] == 6 * 3
    # a Jacobian and a trial on the first minibatch; afterwards the loss on a new one as well
    jacobian = 6 * (3 + 2 * 2 + 3 * 1 + 2 * 2)
    assert costs[1] == jacobian + 6 * 3
    assert min(costs[2:]) == jacobian + 2 * 6 * 3
    assert whole < 0.2 * start


def test_a_minibatch_of_all_the_pairs_is_no_minibatch(run, bending, double_pairs):
    family, pairs = NonStationary(fs.classical.euler(2)), double_pairs(bending, 8)
    one, other = (run(bending, family, pairs, minibatch=size, iterations=4)[0] for size in (8, None))
    assert all(torch.equal(a.theta, b.theta) for a, b in zip(one, other, strict=True))


def test_central_differences_are_of_second_order(bending, random_theta, family):
    """Half the parameters forward, half central, with steps so coarse that the order shows."""
    x0 = fs.noise(5, (3,), dtype=torch.float64)
    pairs, theta, h = fs.Pairs(x0, x0), random_theta(family), 1e-3
    exact = central(bending, family, theta, pairs)
    ways = Differences(Residuals(Rollout(bending, 99), family), MEMORY)
    twice = torch.arange(family.size) % 2 == 1
    ways.perturbations = Perturbations(torch.full((family.size,), h, dtype=torch.float64), twice)
    with torch.no_grad():
        _, J = ways.at(theta, pairs)[0](pairs)
    error = (J - exact).abs().amax((1, 2))
    assert error[~twice].max() < 2 * h
    assert error[twice].max() < 4 * h**2
    assert error[~twice].max() > 100 * error[twice].max()


def test_no_more_perturbations_at_once_than_there_is_room_for(linearised, bending, double_pairs):
    pairs, family, seen = double_pairs(bending, 8), NonStationary(fs.classical.euler(6)), []

    def network(x, t):
        seen.append(len(x))
        return bending.model.network(x, t)

    memory = 4 * 2 * (14 * 24) * 2
    field = fs.Field(network, shape=(3,))
    options = {"memory": memory, "jacobian": "differences", "step": 1e-3}
    task = linearised(Rollout(field, 4096), family, pairs, **options)
    task.normal_equations(torch.zeros(family.size, dtype=torch.float64))
    within = task.residuals.room(memory, family.size, pairs)
    assert within.pairs * within.together == max(seen) == 4
