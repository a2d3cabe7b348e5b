"""Couplings: their laws in closed form, optimal transport against SciPy, and torchcfm's call."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.distributions import Normal, kl_divergence

from fewstep.flows import Independent, KLWeight, Learned, MinibatchOT, Mixed, Paired
from fewstep.flows.objective import FlowMatching


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Affine(nn.Module):
    """``N(a x, b^2)``, the simplest encoder."""

    def __init__(self, a=0.0, b=1.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.log_variance = nn.Parameter(torch.tensor(2 * math.log(b), dtype=torch.float64))

    def forward(self, x):
        return self.a * x, self.log_variance.expand_as(x)


def data(count=64, dimensions=3):
    return torch.randn(count, dimensions, dtype=torch.float64, generator=seeded(7))


COUPLINGS = [Independent(), Learned(Affine(0.5, 0.7)), Mixed(Affine(0.5, 0.7)), MinibatchOT()]


@pytest.mark.parametrize("coupling", COUPLINGS, ids=lambda c: type(c).__name__)
def test_every_coupling_draws_from_its_generator_and_leaves_the_data_in_order(coupling):
    x1 = data()
    first, again, other = (coupling(x1, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first.x0, again.x0)
    assert not torch.equal(first.x0, other.x0)
    assert torch.equal(first.x1, x1)
    assert first.kl.shape == ()
    assert first.x0.dtype == x1.dtype


def test_the_learned_noise_and_its_divergence_follow_the_encoder():
    x1 = data(100_000, 1)
    x0, _, kl = Learned(Affine(0.5, 0.7))(x1, generator=seeded())
    assert (x0 - 0.5 * x1).std().item() == pytest.approx(0.7, rel=0.01)
    assert torch.corrcoef(torch.cat([x0, x1], 1).T)[0, 1].item() == pytest.approx(
        0.5 / math.hypot(0.5, 0.7), rel=0.01
    )
    oracle = kl_divergence(Normal(0.5 * x1, 0.7), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl.detach(), oracle)


def test_the_mixed_noise_has_the_moments_of_its_mixture():
    """Given x1: mean m / 2, variance (v + 1) / 2 + m^2 / 12, as w is uniform on [0, 1]."""
    x1 = torch.full((200_000, 1), 2.0, dtype=torch.float64)
    x0 = Mixed(Affine(0.8, 0.5))(x1, generator=seeded()).x0.detach()
    m, v = 1.6, 0.25
    assert x0.mean().item() == pytest.approx(m / 2, rel=0.01)
    assert x0.var().item() == pytest.approx((v + 1) / 2 + m**2 / 12, rel=0.02)


def test_a_mixed_sample_has_one_weight_for_all_its_dimensions():
    x1 = torch.full((50, 4), 100.0, dtype=torch.float64)
    x0 = Mixed(Affine(1.0, 1e-6))(x1, generator=seeded()).x0.detach()
    assert (x0.std(dim=1) < 3).all()  # the rest is noise of variance 1 - w
    assert x0[:, 0].std() > 20


def test_the_gradient_reaches_the_encoder_through_state_and_target():
    """Against differences of the whole loss, in which nothing is held still."""
    flow = nn.Linear(3, 3).double()
    objective = FlowMatching(lambda_flow(flow), Learned(Affine(0.3, 0.8), beta=0.1))
    encoder = objective.coupling.encoder

    def loss():
        return objective(data(), generator=seeded(3))["loss"]

    loss().backward()
    for parameter in (encoder.a, encoder.log_variance):
        with torch.no_grad():
            parameter += 1e-6
            above = loss()
            parameter -= 2e-6
            below = loss()
            parameter += 1e-6
        assert parameter.grad.item() == pytest.approx((above - below).item() / 2e-6, rel=1e-5)


def lambda_flow(linear):
    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, x, t):
            return self.linear(x) * t[:, None]

    return Flow()


def test_minibatch_transport_is_the_optimal_assignment():
    x1, noise = data(40), torch.randn(40, 3, dtype=torch.float64, generator=seeded(1))
    x0 = MinibatchOT()(x1, noise, generator=seeded()).x0
    cost = torch.cdist(x1, noise).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    assert (x0 - x1).square().sum().item() == pytest.approx(cost[rows, columns].sum().item(), rel=1e-9)
    assert sorted(map(tuple, x0.tolist())) == sorted(map(tuple, noise.tolist()))  # each noise once


def test_minibatch_transport_has_the_shape_of_pictures():
    x1 = torch.randn(6, 1, 4, 4, generator=seeded(2))
    x0 = MinibatchOT()(x1, generator=seeded()).x0
    assert x0.shape == x1.shape
    assert x0.dtype == x1.dtype


def test_pairs_are_used_as_they_are():
    x0, x1 = data(), data() + 1
    assert torch.equal(Paired()(x1, x0).x0, x0)
    with pytest.raises(ValueError, match="takes pairs of noise and data"):
        Paired()(x1)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"x0: must have the shape of x1, \(64, 3\), not \(63, 3\)"):
        Independent()(data(), data(63))


def test_an_encoder_with_the_wrong_channels_is_refused():
    coupling = Learned(lambda x: (x[:, :2], x[:, :2]))
    with pytest.raises(
        ValueError, match=r"encoder: must return a mean and a log-variance of the data's shape"
    ):
        coupling(data())


def test_beta_may_ramp():
    assert [KLWeight(3)(k) for k in (0, 10**9)] == [3, 3]
    assert [KLWeight(4, 0.0, 4)(k) for k in (0, 1, 4, 9)] == [0, 1, 4, 4]
    assert [KLWeight(10, 30, 10)(k) for k in (0, 5, 10)] == [30, 20, 10]
    assert KLWeight(3).describe() == 3
    assert KLWeight(10, 30, 10).describe() == {"start": 30, "end": 10, "steps": 10}
    assert Learned(Affine(), beta=KLWeight(10, 30, 10)).kl_weight(5) == 20
    for wrong in ({"end": -1}, {"end": 0}, {"end": math.nan}, {"end": 1, "start": 2}):
        with pytest.raises(ValueError, match="beta: "):
            KLWeight(**wrong)


@pytest.mark.parametrize("coupling", COUPLINGS, ids=lambda c: type(c).__name__)
def test_the_call_of_torchcfm(coupling):
    torch.manual_seed(0)
    x1, noise = data(), data().flip(0)
    t, xt, ut = coupling.sample_location_and_conditional_flow(noise, x1)
    t_ = t[:, None]
    torch.testing.assert_close(xt + (1 - t_) * ut, x1)  # the straight line ends at the data
    torch.testing.assert_close(coupling.penalty(), coupling.kl_weight(0) * coupling(x1, noise).kl)
    given = torch.full((64,), 0.25, dtype=torch.float64)
    t, xt, ut, eps = coupling.sample_location_and_conditional_flow(noise, x1, given, return_noise=True)
    assert torch.equal(t, given)
    assert not eps.any()


def test_the_independent_coupling_is_torchcfms():
    torchcfm = pytest.importorskip("torchcfm", reason="compares with torchcfm, which is not installed")
    x0, x1 = data().flip(0).float(), data().float()
    results = []
    for matcher in (torchcfm.ConditionalFlowMatcher(sigma=0.0), Independent()):
        torch.manual_seed(0)
        results.append(matcher.sample_location_and_conditional_flow(x0, x1))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_penalty_needs_a_call():
    with pytest.raises(ValueError, match="there is no KL term yet"):
        Learned(Affine()).penalty()


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e30])
def test_data_without_a_finite_cost_are_refused(value):
    with pytest.raises(ValueError, match="MinibatchOT: noise and data must have finite squared distances"):
        MinibatchOT().couple(torch.zeros(4, 2), torch.full((4, 2), value), None)
