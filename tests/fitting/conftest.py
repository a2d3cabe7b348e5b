"""Small fields whose network counts what it is asked, and ways to look at one theta of a fit."""

import pytest
import torch

import fewstep as fs
from fewstep.fitting import ENDPOINT_LOSSES, GaussNewton
from fewstep.fitting._gauss_newton import Linearised, gauss_newton
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._task import Task


@pytest.fixture(autouse=True)
def _few_rivals(request):
    if not request.node.get_closest_marker("all_rivals"):
        request.getfixturevalue("few_rivals")


class Counting:
    """A network that counts the samples it has seen."""

    def __init__(self, network):
        self.network = network
        self.seen = 0

    def __call__(self, x, t, **conditions):
        self.seen += len(x)
        return self.network(x, t, **conditions)


def bend(x, t):
    """A smooth velocity that is neither linear nor separable, with Lipschitz constant 0.9 in x."""
    return 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t[:, None])


def weak(x, t):
    return 0.8 * torch.sin(x.roll(1, dims=1) + t[:, None])


@pytest.fixture
def counting():
    return Counting


@pytest.fixture
def bending():
    """A field on three dimensions, not linear in x or t."""
    return fs.Field(Counting(bend), shape=(3,), name="bend")


@pytest.fixture
def other():
    """A field of the same shape that bends otherwise."""
    return fs.Field(Counting(lambda x, t: torch.cos(1.2 * x + t[:, None]) - x), shape=(3,), name="other")


@pytest.fixture
def guided():
    """A field that is guided away from a weaker one; its network counts what it is asked."""
    return fs.Field(Counting(bend), shape=(3,), guide=weak, name="bend")


@pytest.fixture
def mixture():
    return fs.models.random_mixture(24, 7).field("mixture")


@pytest.fixture
def random_theta():
    def draw(family, size=0.1, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return size * torch.randn(family.size, dtype=torch.float64, generator=generator)

    return draw


@pytest.fixture
def double_pairs():
    """Tight reference pairs in float64."""

    def make(field, count, seed=0, **conditions):
        x0 = fs.noise(count, field.shape, seed=seed, dtype=torch.float64)
        return fs.reference.pairs(field, x0, rtol=1e-10, atol=1e-10, **conditions)

    return make


@pytest.fixture
def fresh():
    """Pairs that no fit has seen."""

    def make(field, count=16):
        return fs.reference.pairs(field, fs.noise(count, field.shape, seed=77), rtol=1e-6, atol=1e-6)

    return make


@pytest.fixture
def held_out():
    """The two pairs that a fit of eight from seed 0 validates on."""

    def make(field):
        return fs.reference.pairs(field, fs.noise(8, field.shape), rtol=1e-6, atol=1e-6)[-2:]

    return make


@pytest.fixture
def rmse():
    """``rmse(solver, field, pairs)``: that of samples."""

    def measure(solver, field, pairs):
        return float(fs.metrics.rmse(solver.sample(field, pairs.x0), pairs.x1))

    return measure


@pytest.fixture
def linearised():
    """``linearised(rollout, family, pairs, loss, **settings)``: loss and normal equations at any theta."""

    def make(rollout, family, pairs, loss=ENDPOINT_LOSSES["rmse"], reuse=0, **settings):
        return Linearised(Task(rollout, family.member(), pairs), loss, GaussNewton(**settings), reuse)

    return make


@pytest.fixture
def run():
    """``run(field, family, pairs, loss, **settings)``: the iterates of Gauss-Newton, and its rollout."""

    def run(field, family, pairs, loss=ENDPOINT_LOSSES["rmse"], max_batch=4096, **settings):
        rollout = Rollout(field, max_batch)
        settings = GaussNewton(**{"iterations": 30, **settings})
        return list(gauss_newton([Task(rollout, family.member(), pairs)], loss, settings)), rollout

    return run
