"""The Jacobian through the directions that its columns span, against backpropagation."""

import pytest
import torch
from torch.autograd.functional import jacobian

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime, SmoothCorrections, Timesteps
from fewstep.fitting import GaussNewton
from fewstep.fitting._directions import Directions, axes
from fewstep.fitting._residuals import Residuals
from fewstep.fitting._rollout import Rollout

MEMORY = GaussNewton().memory
FAMILIES = {
    "fixed": lambda: NonStationary(fs.classical.adams_bashforth(2, 4)),
    "around": lambda: NonStationary(Timesteps("deis3/cosine", 4, decoupled=True)),
    "heun": lambda: NonStationary(fs.classical.heun(2)),  # calls at t = 1
    "scale_time": lambda: ScaleTime("midpoint", 2),
    "smooth": lambda: SmoothCorrections("ab2", degree=2, terms=1).member(4).own,
    "scale_time_ab2": lambda: ScaleTime("ab2", 3),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]()


def exact(field, family, theta, pairs):
    """The Jacobian by backpropagation through whole rollouts, parameters first."""

    def end(theta):
        return Rollout(field, 4096).endpoint(family.table(theta).unroll(), pairs)

    return jacobian(end, theta).movedim(-1, 0)


def directions(field, family, theta, pairs, max_batch=4096, **options):
    rollout = Rollout(field, max_batch)
    columns, within = Directions(Residuals(rollout, family), MEMORY, **options).at(theta, pairs)
    assert within.pairs >= min(len(pairs), max_batch)
    before = rollout.calls
    end, J = columns(pairs)
    return end, J, rollout.calls - before


def wave(x, t, shift):
    return torch.cos(2 * x.roll(1, dims=1) + shift) * (1 + t[:, None])


def test_all_directions_are_the_whole_jacobian(family, random_theta):
    """Conditions differ from sample to sample; three dimensions have no more than three axes."""
    shift = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = fs.Field(wave, shape=(3,))
    x0 = fs.noise(5, (3,), dtype=torch.float64)
    pairs, theta = fs.Pairs(x0, torch.zeros_like(x0), per_sample={"shift": shift}), random_theta(family)
    end, J, calls = directions(field, family, theta, pairs, step=1e-6, tolerance=0.0)
    torch.testing.assert_close(end, family.solver(theta).sample(field, x0, shift=shift))
    torch.testing.assert_close(J, exact(field, family, theta, pairs), rtol=1e-4, atol=1e-4)
    assert calls <= 5 * family.nfe * (1 + 3 + 1)


def test_few_directions_are_nearly_the_jacobian_of_a_trained_network(random_theta):
    field, family = fs.models.bundled("digits"), FAMILIES["around"]()
    x0 = fs.noise(8, field.shape, seed=77)
    pairs, theta = fs.Pairs(x0, x0), random_theta(family, 0.05)
    expected = exact(field, family, theta, pairs)
    # perturbed rollouts, each from where it departs: one call a row from there on, for every number
    alone = Rollout(field, 4096)
    tables = [family.table(theta + 1e-3 * unit).unroll() for unit in torch.eye(family.size).double()]
    alone.differences(family.table(theta).unroll(), tables, pairs)
    for tolerance in (0.1, 0.01):
        _, J, calls = directions(field, family, theta, pairs, tolerance=tolerance)
        assert float((J - expected).norm() / expected.norm()) < max(tolerance, 0.02)
        assert calls < 0.8 * alone.calls


@pytest.mark.parametrize("max_batch", [3, 4096])
def test_every_call_is_counted_and_no_batch_is_larger_than_allowed(bending, random_theta, max_batch):
    sizes = []

    def network(x, t):
        sizes.append(len(x))
        return bending.model.network(x, t)

    field, family = fs.Field(network, shape=(3,)), FAMILIES["around"]()
    x0 = fs.noise(3, (3,), dtype=torch.float64)
    rollout = Rollout(field, max_batch)
    directions_ = Directions(Residuals(rollout, family), MEMORY)
    for _ in range(2):
        directions_.at(random_theta(family), fs.Pairs(x0, x0))[0](fs.Pairs(x0, x0))
    assert sum(sizes) == rollout.calls
    assert max(sizes) <= max_batch


def test_steps_are_measured_once_and_coarser_where_the_network_rounds(bending, random_theta):
    family, theta = FAMILIES["around"](), None
    x0 = fs.noise(4, (3,))
    steps = []
    for dtype in (torch.float64, torch.bfloat16):
        field = fs.Field(lambda x, t, d=dtype: bending.model.network(x, t).to(d), shape=(3,))
        ways = Directions(Residuals(Rollout(field, 4096), family), MEMORY)
        theta = random_theta(family)
        ways.at(theta, fs.Pairs(x0, x0))
        first = ways.steps
        ways.at(theta, fs.Pairs(x0, x0))
        assert ways.steps is first
        steps.append(first.step)
    assert (steps[1] > 100 * steps[0])[1:].all()  # nothing moves the state of the first call


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_axes_are_orthonormal_and_hold_the_columns(tolerance):
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(4, 9, 6, dtype=torch.float64, generator=generator)
    columns *= 0.3 ** torch.arange(6)  # a few dimensions hold most of them
    columns[1] = 0
    V, W = axes(columns, tolerance)
    gram = V @ V.mT
    norms = gram.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(gram, torch.diag_embed(norms), rtol=0, atol=1e-10)
    assert ((norms - 1).abs().minimum(norms) < 1e-10).all()
    assert norms[1].sum() == 0
    missing = (columns - W @ V).norm(dim=2).amax(1)
    longest = columns.norm(dim=2).amax(1)
    assert (missing <= tolerance * longest + 1e-10).all()
    assert V.shape[1] == 6 if tolerance == 0 else V.shape[1] < 6
    alone, _ = axes(columns[2:3], tolerance)  # what one sample gets does not depend on the others
    torch.testing.assert_close(alone, V[2:3, : alone.shape[1]])
