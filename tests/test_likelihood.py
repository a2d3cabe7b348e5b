"""Likelihoods against densities that are known otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep._likelihood import _rademacher
from fewstep.reference import CallLimitError, solve
from fewstep.schedules import VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE(), VE(5.0, 0.1)]
MATRIX = torch.tensor([[0.3, 0.8, -0.2], [-0.5, -0.4, 0.1], [0.6, 0.0, 0.7]], dtype=torch.float64)


def normal_log_prob(x, mean=0.0, std=1.0):
    return torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)


def linear(matrix):
    """The field ``u = x M^T``: data ``exp(M) noise``."""
    return fs.Field(lambda x, t: x @ matrix.T)


@pytest.fixture
def mixture():
    """``mixture(schedule, prediction)``: a network in three dimensions, and eight draws of its data."""

    def make(schedule=None, prediction="velocity", shape=(3,)):
        means = torch.tensor([[0.5, -1.0, 0.2], [-0.7, 0.3, 0.0]], dtype=torch.float64)
        network = fs.models.GaussianMixture(
            means.reshape(2, *shape), [0.3, 0.8], [0.3, 0.7], schedule, prediction
        )
        return network, network.sample_data(8, torch.Generator().manual_seed(0))

    return make


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_one_gaussian_has_its_density(schedule):
    """At t = 1, the noise that the schedule leaves there included."""
    mu, s = 0.4, 0.3
    alpha, sigma = (float(c) for c in schedule(1.0)[:2])
    network = fs.models.GaussianMixture(torch.full((1, 2), mu), s, schedule=schedule, prediction="noise")
    field = fs.Field(network, schedule, "noise", data_moments=(mu, s))
    x1 = mu + 0.4 * fs.noise(10, (2,), dtype=torch.float64)
    result = fs.log_likelihood(field, x1, rtol=1e-8, atol=1e-8)
    exact = normal_log_prob(x1, alpha * mu, math.hypot(alpha * s, sigma))
    torch.testing.assert_close(result.log_prob, exact, rtol=0, atol=2e-5)
    assert torch.equal(result.error, torch.zeros(10, dtype=torch.float64))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_mixture_has_its_density(schedule, mixture):
    """But for the start, which is a mixture where the schedule leaves signal in it, not a Gaussian."""
    network, x1 = mixture(schedule, "data")
    result = fs.log_likelihood(network.field(), x1, rtol=1e-7, atol=1e-7)
    scale = float(schedule(0.0).sigma)
    start = network.log_prob(result.latents, 0.0) - normal_log_prob(result.latents, 0.0, scale)
    torch.testing.assert_close(result.log_prob + start, network.log_prob(x1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_the_tolerance_holds(tolerance, mixture):
    network, x1 = mixture()
    result = fs.log_likelihood(network.field(), x1, rtol=tolerance, atol=tolerance)
    assert (result.log_prob - network.log_prob(x1)).abs().max() < 20 * tolerance


def test_the_integral_is_controlled_where_the_state_is_easy():
    """Points at rest, around which the flow contracts at a rate that changes fast."""
    field = fs.Field(lambda x, t: x * torch.cos(60 * t[:, None]))
    x1 = torch.zeros(2, 1, dtype=torch.float64)
    result = fs.log_likelihood(field, x1, rtol=1e-8, atol=1e-8)
    exact = normal_log_prob(x1) - math.sin(60) / 60
    torch.testing.assert_close(result.log_prob, exact, rtol=0, atol=1e-7)
    assert result.nfe > 100


def test_a_density_integrates_to_one():
    field = fs.Field(lambda x, t: torch.sin(2 * x) - t[:, None] * x)
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    log_prob = fs.log_likelihood(field, grid[:, None], rtol=1e-7, atol=1e-7, batch=1000).log_prob
    assert abs(float(torch.trapezoid(log_prob.exp(), grid)) - 1) < 1e-5


def test_hutchinson_is_unbiased_and_knows_its_error():
    """``v . M v`` has the trace as its mean and ``sum_{i<j} (M_ij + M_ji)^2`` as its variance."""
    x1, K = fs.noise(6, (3,), dtype=torch.float64), 500
    result = fs.log_likelihood(
        linear(MATRIX), x1, divergence="hutchinson", probes=K, seed=3, rtol=1e-8, atol=1e-8
    )
    exact = normal_log_prob(x1 @ torch.linalg.matrix_exp(-MATRIX).T) - MATRIX.trace()
    torch.testing.assert_close(
        fs.log_likelihood(linear(MATRIX), x1, rtol=1e-8, atol=1e-8).log_prob, exact, rtol=0, atol=1e-6
    )
    assert ((result.log_prob - exact).abs() < 4 * result.error).all()
    spread = (MATRIX + MATRIX.T).triu(1).square().sum().sqrt() / math.sqrt(K)
    torch.testing.assert_close(result.error, spread.expand(6), rtol=0.15, atol=0)


def test_the_error_of_two_probes_is_half_their_difference():
    """Which is how far their mean is from the first."""
    x1 = fs.noise(6, (3,), dtype=torch.float64)
    one, two = (
        fs.log_likelihood(linear(MATRIX), x1, divergence="hutchinson", probes=probes, rtol=1e-8, atol=1e-8)
        for probes in (1, 2)
    )
    torch.testing.assert_close(two.error, (one.log_prob - two.log_prob).abs(), rtol=0, atol=1e-6)
    assert two.error.max() > 0.1


def test_hutchinson_is_unbiased_on_a_bent_field(mixture):
    network, x1 = mixture()
    result = fs.log_likelihood(network.field(), x1, divergence="hutchinson", probes=80)
    assert ((result.log_prob - network.log_prob(x1)).abs() < 4 * result.error + 1e-4).all()
    assert (result.error > 0).any()


def test_one_probe_is_exact_without_cross_terms():
    field, x1 = linear(MATRIX.diag().diag()), fs.noise(5, (3,), dtype=torch.float64)
    result = fs.log_likelihood(field, x1, divergence="hutchinson")
    torch.testing.assert_close(result.log_prob, fs.log_likelihood(field, x1).log_prob, rtol=1e-12, atol=0)
    assert result.error.isnan().all()


def test_probes_belong_to_their_samples():
    x = torch.zeros(6, 2, 4)
    signs = _rademacher(5, 0, 3, x)
    assert signs.shape == (3, 6, 2, 4)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    assert torch.equal(_rademacher(5, 2, 3, x[2:4]), signs[:, 2:4])  # whatever the batch
    assert torch.equal(_rademacher(5, 0, 2, x), signs[:2])  # more keep the earlier ones
    assert not torch.equal(_rademacher(6, 0, 3, x), signs)
    assert not torch.equal(signs[:, 0], signs[:, 1])


def test_probes_know_nothing_of_noise_with_their_seed():
    probes, noise = _rademacher(0, 0, 1, torch.zeros(50, 400))[0], fs.noise(50, (400,))
    assert abs(float(probes.mean())) < 4 / math.sqrt(20000)
    assert abs(float((probes * noise).mean())) < 4 / math.sqrt(20000)


@pytest.mark.parametrize("options", [{}, {"divergence": "hutchinson", "probes": 3}], ids=str)
def test_batches_make_no_difference(options, mixture):
    network, x1 = mixture()
    options = {**options, "rtol": 1e-8, "atol": 1e-8}
    whole, parts = (fs.log_likelihood(network.field(), x1, batch=b, **options) for b in (8, 3))
    for name in ("log_prob", "error", "latents"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=0, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"divergence": "hutchinson", "probes": 2}], ids=str)
def test_images_are_samples_too(options, mixture):
    (flat, x1), (images, _) = mixture(), mixture(shape=(3, 1, 1))
    expected = fs.log_likelihood(flat.field(), x1, **options)
    result = fs.log_likelihood(images.field(), x1.reshape(8, 3, 1, 1), **options)
    torch.testing.assert_close(result.log_prob, expected.log_prob)
    assert result.latents.shape == (8, 3, 1, 1)


def test_numbers_without_dimensions_are_samples_too():
    x1 = fs.noise(4, (), dtype=torch.float64)
    result = fs.log_likelihood(fs.Field(lambda x, t: 0.5 * x), x1, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(result.log_prob, normal_log_prob(x1[:, None] * math.exp(-0.5)) - 0.5)


@pytest.mark.parametrize("schedule", [CondOT(), VE(5.0, 0.1)], ids=repr)
def test_latents_flow_back_to_the_data(schedule, mixture):
    network, x1 = mixture(schedule, "noise")
    latents = fs.log_likelihood(network.field(), x1, rtol=1e-9, atol=1e-9).latents
    noise = latents / schedule(0.0).sigma
    states, _ = solve(network.field(), noise, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(states[-1], x1, rtol=0, atol=1e-6)


def test_conditions_go_with_their_samples():
    x1, speed = fs.noise(5, (2,), dtype=torch.float64), torch.linspace(-1, 1, 5, dtype=torch.float64)
    field = fs.Field(lambda x, t, speed, sign: sign * speed[:, None] * x)
    tight = {"rtol": 1e-9, "atol": 1e-9, "batch": 2}
    result = fs.log_likelihood(field, x1, **tight, conditions={"sign": -1}, per_sample={"speed": speed})
    exact = normal_log_prob(x1 * speed.exp()[:, None]) + 2 * speed
    torch.testing.assert_close(result.log_prob, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"divergence": "hutchinson", "probes": 2}], ids=str)
def test_every_call_and_backward_pass_is_counted(options, counted):
    passes = []

    def model(x, t):
        u = torch.sin(x)
        if len(network.times) > 1 and u.requires_grad:  # the first call asks for autograd
            u.register_hook(lambda grad: passes.append(len(grad)))
        return u

    network = counted(model)
    result = fs.log_likelihood(fs.Field(network), fs.noise(4, (3,)), **options)
    assert len(network.times[0]) == 1
    assert result.nfe == len(network.times) - 1
    assert result.backwards == len(passes) == result.nfe * (options.get("probes") or 3)


@pytest.mark.parametrize("speed", [1.0, 1e-3, 1e-9])
def test_the_field_is_never_called_outside_its_times(speed, counted):
    network = counted(lambda x, t: speed * x)
    fs.log_likelihood(fs.Field(network), fs.noise(3, (2,), dtype=torch.float64))
    assert 0 <= min(t.min() for t in network.times) <= max(t.max() for t in network.times) <= 1


def test_float32_data_give_float64_densities(mixture):
    network, x1 = mixture()
    seen = set()

    def typed(x, t):
        seen.add(x.dtype)
        return network(x, t)

    for dtype in (None, torch.float64):
        result = fs.log_likelihood(fs.Field(typed), x1.float(), dtype=dtype)
        assert (result.log_prob.dtype, result.latents.dtype) == (torch.float64, torch.float32)
        torch.testing.assert_close(result.log_prob, network.log_prob(x1), rtol=0, atol=1e-3)
    assert seen == {torch.float32}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(mode, mixture):
    network, x1 = mixture()
    expected = fs.log_likelihood(network.field(), x1)
    with mode():
        result = fs.log_likelihood(network.field(), x1.clone())
    assert torch.equal(result.log_prob, expected.log_prob)


def test_nothing_is_left_behind():
    network = torch.nn.Linear(2, 2)
    x1 = fs.noise(3, (2,)).requires_grad_()
    result = fs.log_likelihood(fs.Field(lambda x, t: network(x)), x1)
    assert not result.log_prob.requires_grad
    assert not result.latents.requires_grad
    assert network.weight.grad is None
    assert x1.grad is None


def test_bits_per_dim_of_levels_are_those_of_their_probability():
    """An 8-bit image of grey noise, whose levels have known probabilities."""
    s, level = 0.3, torch.tensor([0.0, 100.0, 128.0, 180.0], dtype=torch.float64)
    edges = ((level[:, None] + torch.tensor([-0.5, 0.5], dtype=torch.float64)) / 127.5 - 1) / s
    probability = torch.special.ndtr(edges).diff(dim=1)[:, 0]
    x1 = (level / 127.5 - 1)[:, None].expand(4, 6)
    field = fs.models.GaussianMixture(torch.zeros(1, 6), s).field()
    result = fs.log_likelihood(field, x1, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result.bits_per_dim(bin_width=2 / 255), -probability.log2(), rtol=0, atol=1e-3)
    density = result.bits_per_dim()
    torch.testing.assert_close(density, -result.log_prob / math.log(2) / 6)
    torch.testing.assert_close(result.bits_per_dim(2 / 255), density + math.log2(127.5))
    torch.testing.assert_close(result.bits_per_dim(2 / 256), density + 7)
    with pytest.raises(ValueError, match="bin_width must be a positive number, not 0"):
        result.bits_per_dim(0)


@pytest.mark.parametrize(
    ("x1", "options", "message"),
    [
        ([1.0], {}, r"x1 must be a floating-point tensor of shape \(B, \.\.\.\), not empty, but is list"),
        (torch.zeros(2, 3, dtype=torch.int64), {}, r"but is torch.int64 of shape \(2, 3\)"),
        (torch.zeros(()), {}, r"but is torch.float32 of shape \(\)"),
        (torch.zeros(0, 3), {}, r"but is torch.float32 of shape \(0, 3\)"),
        (torch.full((2, 3), torch.inf), {}, "x1 has NaN or infinite values; drop"),
        (None, {"divergence": "skilling"}, "divergence must be 'exact' or 'hutchinson', not 'skilling'"),
        (None, {"probes": 4}, "probes=4 has no meaning for the exact divergence; pass divergence="),
        (None, {"divergence": "hutchinson", "probes": 0}, "probes must be a whole .* 1, not 0"),
        (None, {"seed": -1}, "seed must be a whole .* 0, not -1"),
        (None, {"batch": 0}, "batch must be a whole .* 1, not 0"),
    ],
)
def test_wrong_arguments_are_told(x1, options, message):
    field = fs.Field(lambda x, t: -x, shape=(3,))
    with pytest.raises(ValueError, match=message):
        fs.log_likelihood(field, torch.zeros(2, 3) if x1 is None else x1, **options)


@torch.no_grad()
def without_grad(x, t):
    return 2 * x


@torch.inference_mode()
def in_inference_mode(x, t):
    return 2 * x


def in_numpy(x, t):
    return torch.from_numpy(np.sin(x.numpy()))


def cut_off(x, t):
    return x.detach() @ torch.nn.Parameter(torch.eye(2))


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
@pytest.mark.parametrize("network", [without_grad, in_inference_mode, in_numpy, cut_off])
def test_a_network_without_derivative_is_told(network, prediction):
    """Also where ``A x + B m`` has one."""
    with pytest.raises(ValueError, match=r"autograd cannot differentiate the network by x.* take no_grad"):
        fs.log_likelihood(fs.Field(network, prediction=prediction), fs.noise(3, (2,)))


def test_other_failures_of_the_network_speak_for_themselves():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fs.log_likelihood(linear(MATRIX.float()), torch.zeros(2, 4))


def test_nan_is_named():
    x1 = fs.noise(3, (2,))
    with pytest.raises(FloatingPointError, match=r"likelihood: the network returned NaN .* t = 1 \(call 1\)"):
        fs.log_likelihood(fs.Field(lambda x, t: x * torch.nan), x1)
    with pytest.raises(FloatingPointError, match="derivative of the network returned NaN or infinity"):
        fs.log_likelihood(fs.Field(lambda x, t: (x - x).sqrt()), x1)


def test_the_call_cap_fails_loudly(counted):
    network = counted(lambda x, t: torch.sin(300 * t[:, None]) * x)
    with pytest.raises(CallLimitError, match=r"30 calls did not reach t = 0 .* raise max_nfe, loosen"):
        fs.log_likelihood(fs.Field(network), fs.noise(3, (2,)), max_nfe=30)
    assert len(network.times) == 30 + 1 + 2  # one that asks for autograd, two that tell a random network


def test_progress_is_shown(capsys):
    fs.log_likelihood(fs.Field(lambda x, t: -x), fs.noise(3, (2,)), progress=True)
    assert "likelihood" in capsys.readouterr().err
