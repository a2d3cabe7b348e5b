"""Networks of flow_matching, torchcfm and DPM-Solver, played by exact ones."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.adapters import dpm_solver, flow_matching, torchcfm
from fewstep.schedules import DDPM, VP, CondOT, Cosine, Discrete, LinearVP, Polynomial


def scheduler(name, alpha, sigma, **settings):
    """An object like flow_matching's schedulers: called on ``t``, with derivatives by autograd."""

    def call(self, t):
        with torch.enable_grad():
            s = t.detach().clone().requires_grad_()
            parts = alpha(s, **settings), sigma(s, **settings)
            slopes = [torch.autograd.grad(part.sum(), s, retain_graph=True)[0] for part in parts]
        (a, b), (da, db) = [part.detach() for part in parts], slopes
        return SimpleNamespace(alpha_t=a, sigma_t=b, d_alpha_t=da, d_sigma_t=db)

    return type(name, (), {"__call__": call, **settings})()


def rate(t, beta_min, beta_max):
    return (beta_max - beta_min) * (1 - t) ** 2 / 2 + (1 - t) * beta_min


SCHEDULERS = [
    (scheduler("CondOTScheduler", lambda t: t * 1, lambda t: 1 - t), CondOT()),
    (
        scheduler("PolynomialConvexScheduler", lambda t, n: t**n, lambda t, n: 1 - t**n, n=3),
        Polynomial(3.0),
    ),
    (
        scheduler(
            "VPScheduler",
            lambda t, **betas: torch.exp(-rate(t, **betas) / 2),
            lambda t, **betas: torch.sqrt(1 - torch.exp(-rate(t, **betas))),
            beta_min=0.2,
            beta_max=15.0,
        ),
        VP(0.2, 15.0),
    ),
    (scheduler("LinearVPScheduler", lambda t: t * 1, lambda t: (1 - t**2) ** 0.5), LinearVP()),
    (
        scheduler(
            "CosineScheduler", lambda t: torch.sin(math.pi / 2 * t), lambda t: torch.cos(math.pi / 2 * t)
        ),
        Cosine(),
    ),
]
each_scheduler = pytest.mark.parametrize(("theirs", "ours"), SCHEDULERS, ids=lambda value: repr(value)[:30])


class ByKeyword(nn.Module):
    """As flow_matching calls it."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, *, x, t, shift=0.0):
        return self.network(x, t) + shift


class TimeFirst(nn.Module):
    """As torchcfm calls it."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, t, x, shift=0.0):
        assert t.shape == (len(x),)
        return self.network(x, t) + shift


@each_scheduler
@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_flow_matching_networks_give_the_exact_velocity(exact, deviation, theirs, ours, prediction):
    field = flow_matching.field(ByKeyword(exact(ours, prediction)), theirs, prediction=prediction)
    assert field.schedule == ours
    assert deviation(field, ours) < 1e-9


def test_flow_matching_paths_carry_their_scheduler_and_straight_ones_are_the_default(exact):
    model = ByKeyword(exact(CondOT(), "velocity"))
    assert flow_matching.field(model).schedule == CondOT()
    assert flow_matching.field(model, SimpleNamespace(scheduler=SCHEDULERS[3][0])).schedule == LinearVP()
    assert flow_matching.schedule(Polynomial(2.0)) == Polynomial(2.0)


def test_flow_matching_may_ask_for_a_scalar_time():
    seen = []

    def model(x, t):
        seen.append(t.shape)
        return x

    x = torch.ones(3, 2)
    flow_matching.field(model)(x, 0.5)
    flow_matching.field(model, time_shape="scalar")(x, 0.5)
    assert seen == [(3,), ()]


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (
            scheduler("SigmoidScheduler", torch.sigmoid, torch.sigmoid),
            "no schedule is known for a SigmoidSch",
        ),
        (
            scheduler("CosineScheduler", lambda t: t * 1, lambda t: 1 - t),
            r"this CosineScheduler is not Cosine\(\)",
        ),
        # The right path, run the other way.
        (scheduler("CondOTScheduler", lambda t: 1 - t, lambda t: t * 1), "is not CondOT"),
    ],
)
def test_schedulers_that_are_not_known_or_not_what_they_say_are_named(theirs, words):
    with pytest.raises(ValueError, match=words):
        flow_matching.schedule(theirs)


@pytest.mark.parametrize("schedule", [None, CondOT(), Cosine()])
def test_torchcfm_networks_give_the_exact_velocity(exact, deviation, schedule):
    path = schedule or CondOT()
    field = torchcfm.field(TimeFirst(exact(path, "velocity")), schedule=schedule)
    assert deviation(field, path, times=(0.0, 0.3, 0.8, 1.0)) < 1e-9


@pytest.mark.parametrize(("adapter", "wrap"), [(flow_matching, ByKeyword), (torchcfm, TimeFirst)])
def test_conditions_guidance_and_guides_reach_networks_that_are_called_otherwise(exact, adapter, wrap):
    network, x = exact(CondOT(), "velocity"), torch.ones(2, 1, 2, 2, dtype=torch.float64)
    u = network(x, torch.tensor(0.4))
    guided = adapter.field(wrap(network), guidance=3.0, unconditional={"shift": 1.0})
    torch.testing.assert_close(guided(x, torch.tensor(0.4), shift=2.0), u + 4.0)
    auto = adapter.field(wrap(network), guidance=3.0, guide=wrap(lambda x, t: 0 * x))
    torch.testing.assert_close(auto(x, torch.tensor(0.4)), 3 * u)


@pytest.mark.parametrize(("adapter", "wrap"), [(flow_matching, ByKeyword), (torchcfm, TimeFirst)])
def test_a_module_is_known_by_its_weights_and_a_function_by_its_name(exact, adapter, wrap):
    one, other = exact(CondOT(), "velocity"), fs.models.random_mixture(3, 2)
    field = adapter.field(wrap(one))
    assert field.describe()["model"] == wrap.__name__
    assert field.fingerprint() != adapter.field(wrap(other)).fingerprint()
    assert field.fingerprint() == adapter.field(wrap(one)).fingerprint()
    with pytest.raises(ValueError, match="cannot tell one plain function from another"):
        adapter.field(lambda x, t: x).fingerprint()
    with pytest.raises(ValueError, match="network must be callable, not a str"):
        adapter.field("weights.pt")
    with pytest.warns(UserWarning, match="in training mode"):
        adapter.field(wrap(one).train())


def noise_schedule(kind):
    """An object like ``NoiseScheduleVP``, and our schedule."""
    if kind == "linear":
        return SimpleNamespace(schedule="linear", T=1.0, total_N=1000, beta_0=0.1, beta_1=20.0), VP()
    table = DDPM("scaled_linear", 0.00085, 0.012, 100).table
    log_alpha = torch.tensor(table, dtype=torch.float64).log().reshape(1, -1) / 2
    return SimpleNamespace(schedule="discrete", T=1.0, total_N=100, log_alpha_array=log_alpha), Discrete(
        table
    )


@pytest.mark.parametrize("kind", ["linear", "discrete"])
def test_dpm_solver_functions_give_the_exact_velocity(exact, deviation, kind):
    ns, schedule = noise_schedule(kind)
    network, told = exact(schedule, "noise"), []

    def model_fn(x, t_continuous):
        assert t_continuous.shape == (len(x),)
        told.extend(t_continuous.tolist())
        return network(x, 1 - t_continuous)

    field = dpm_solver.field(model_fn, ns)
    torch.testing.assert_close(list(field.schedule(0.3)), list(schedule(0.3)), rtol=1e-12, atol=1e-12)
    assert deviation(field, schedule) < 1e-9
    field(torch.ones(1, 1, 2, 2, dtype=torch.float64), 0.0)
    field(torch.ones(1, 1, 2, 2, dtype=torch.float64), 1.0)
    assert (max(told), min(told)) == (1.0, 1 / ns.total_N)
    assert field.describe()["clock"] == f"Countdown(lowest={1 / ns.total_N})"


def test_dpm_solver_timesteps_are_the_discrete_ones():
    """Step ``k`` of ``N`` is at ``(k + 1) / N`` there, as its ``model_wrapper`` undoes: ``(t - 1 / N) N``."""
    ns, schedule = noise_schedule("discrete")
    told = []
    field = dpm_solver.field(lambda x, t: told.append(float(t[0])) or x, ns)
    for k in (0, 10, 99):
        t = (99 - k) / 100
        assert float(schedule.timestep(t)) == pytest.approx(k)
        field.predict(torch.ones(1, 1, dtype=torch.float64), t)
        assert (told[-1] - 1 / 100) * 100 == pytest.approx(k, abs=1e-9)
        alpha = float(field.schedule(t).alpha)
        assert alpha == pytest.approx(math.exp(float(ns.log_alpha_array[0, k])), rel=1e-12)


@pytest.mark.parametrize(
    "settings", [{"schedule": "cosine", "T": 0.9946}, {"schedule": "linear", "T": 2.0}, {}]
)
def test_noise_schedules_that_are_not_known_are_named(settings):
    with pytest.raises(ValueError, match="must be 'linear' or 'discrete' with time up to T = 1"):
        dpm_solver.field(lambda x, t: x, SimpleNamespace(**settings))


class InOne(nn.Module):
    """As torchcfm's MLP with time_varying=True: one tensor of states and time."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, x):
        return self.network(x[:, :-1].reshape(-1, 1, 2, 2), x[:, -1]).flatten(1)


class torch_wrapper(nn.Module):
    """As torchcfm's, for torchdyn: a time of shape () is repeated for every state."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, t, x, *args, **kwargs):
        return self.model(torch.cat([x, t.repeat(x.shape[0])[:, None]], 1))


@pytest.mark.parametrize("time", [0.25, torch.tensor(0.25), torch.linspace(0, 1, 6)], ids=str)
@pytest.mark.parametrize("time_shape", ["batch", "scalar"])
def test_torchcfm_networks_may_take_state_and_time_in_one_tensor(exact, time, time_shape):
    network, x = exact(CondOT(), "velocity"), fs.noise(6, (1, 2, 2), dtype=torch.float64)
    field = torchcfm.field(InOne(network), concatenated=True, time_shape=time_shape)
    expected = network(x, torch.as_tensor(time))
    torch.testing.assert_close(field(x.flatten(1), time), expected.flatten(1))
    double = torchcfm.field(InOne(network), concatenated=True, guidance=2.0, guide=InOne(lambda x, t: 0 * x))
    torch.testing.assert_close(double(x.flatten(1), time), 2 * expected.flatten(1))


def test_the_wrapper_for_torchdyn_gets_one_time(exact):
    network, x = exact(CondOT(), "velocity"), fs.noise(6, (1, 2, 2), dtype=torch.float64)
    field = torchcfm.field(torch_wrapper(InOne(network)))
    torch.testing.assert_close(field(x.flatten(1), 0.3), network(x, torch.tensor(0.3)).flatten(1))


def test_torchcfms_own_mlp(exact):
    models = pytest.importorskip("torchcfm.models", reason="torchcfm is not installed")
    net, x = models.MLP(dim=2, time_varying=True).eval(), fs.noise(5, (2,))
    expected = net(torch.cat([x, torch.full((5, 1), 0.3)], 1))
    assert torch.equal(torchcfm.field(net, concatenated=True)(x, 0.3), expected)
    assert torch.equal(torchcfm.field(torch_wrapper(net))(x, 0.3), expected)


def test_networks_that_are_called_otherwise_name_the_option(exact):
    network = InOne(exact(CondOT(), "velocity"))
    words = r"InOne\(x\) cannot be called as net\(t, x\); pass concatenated=True, if it takes cat"
    with pytest.raises(ValueError, match=words):
        torchcfm.field(network)
    with pytest.raises(ValueError, match=words):
        torchcfm.field(lambda t, x: x, guide=network, guidance=2.0)
    for fine in (lambda t, x, label: x, lambda *both: both[1], torch.add):  # labels are conditions
        torchcfm.field(fine)
    with pytest.raises(ValueError, match=r"takes states of shape \(B, D\), not \(2, 1, 2, 2\)"):
        torchcfm.field(network, concatenated=True)(torch.ones(2, 1, 2, 2), 0.5)
