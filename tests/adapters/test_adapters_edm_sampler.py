"""Our solvers with the call shape of EDM's, EDM2's and diff-sampler's samplers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.adapters import edm
from fewstep.schedules import VE, VP, CondOT, Cosine

SHAPE = (1, 2, 2)
NOISE = fs.noise(4, SHAPE, seed=5, dtype=torch.float64)
EDM = VE(80.0, 0.0, 7.0)
HEUN = fs.classical.edm_heun(5, schedule=EDM)


class Net(nn.Module):
    """``D(x, sigma)`` of a mixture, called as EDM's networks are."""

    img_channels, img_resolution, label_dim, sigma_min, sigma_max = 1, 2, 3, 0.0, float("inf")

    def __init__(self, exact, shift=0.0):
        super().__init__()
        self.data, self.shift = exact(VE(200.0, 0.0, 1.0), "data"), shift
        self.levels = []
        self.eval()

    def forward(self, x, sigma, class_labels=None, **conditions):
        assert sigma.shape == (len(x),)
        self.levels += sigma.tolist()
        self.conditions = conditions
        label = 0 if class_labels is None else class_labels.argmax(1).reshape(-1, 1, 1, 1)
        return self.data(x, 1 - sigma / 200) + self.shift + 0.1 * label


@pytest.fixture
def net(exact):
    return Net(exact)


@pytest.mark.parametrize(
    "solver",
    [HEUN, fs.classical.midpoint(3), fs.classical.heun(3), fs.classical.dpmpp("2M", 5, schedule=EDM)],
    ids=lambda solver: solver.name,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_are_those_of_the_field(net, solver, dtype):
    """Heun's last call is made without noise, where the field holds the noise of the lowest level."""
    field, noise = edm.field(net), NOISE.to(dtype)
    f = edm.sampler(solver, field.schedule)
    expected = solver.sample(field, noise)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for found in (f(net, noise), f(net=net, noise=noise), f(net, latents=noise, class_labels=None)):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert min(net.levels) >= 0.0019
    assert f(net, NOISE, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine()], ids=lambda schedule: schedule.name)
def test_a_solver_of_a_flow_samples_its_denoiser(exact, schedule):
    field = exact(schedule, "velocity").field()
    solver = fs.classical.midpoint(4)
    found = edm.sampler(solver, schedule)(field.denoiser(), NOISE)
    torch.testing.assert_close(found, solver.sample(field, NOISE), rtol=0, atol=3e-4)


def test_a_solver_whose_first_call_is_told_another_time(exact):
    """Fitted solvers may pass the network another time than that of the state."""
    field = exact(CondOT(), "velocity").field()
    solver = replace(fs.classical.midpoint(4), times=(0.05, *fs.classical.midpoint(4).times[1:]))
    found = edm.sampler(solver, CondOT())(field.denoiser(), NOISE)
    torch.testing.assert_close(found, solver.sample(field, NOISE), rtol=1e-9, atol=1e-9)


def test_labels_and_conditions_reach_the_network(net):
    f, labels = edm.sampler(HEUN), torch.eye(3)[[0, 2, 1, 2]]
    expected = HEUN.sample(edm.field(net), NOISE, class_labels=labels)
    torch.testing.assert_close(f(net, NOISE, labels), expected)
    torch.testing.assert_close(f(net=net, noise=NOISE, labels=labels), expected)
    assert net.conditions == {}
    f(net, NOISE, condition="a", unconditional_condition=None)
    assert net.conditions == {"condition": "a"}


def test_a_guiding_network_guides(exact, net):
    weaker, labels = Net(exact, shift=0.4), torch.eye(3)[[0, 2, 1, 2]]
    field = edm.field(net, guidance=2.5, guide=weaker)
    expected = HEUN.sample(field, NOISE, class_labels=labels)
    f = edm.sampler(HEUN)
    torch.testing.assert_close(f(net=net, noise=NOISE, labels=labels, gnet=weaker, guidance=2.5), expected)
    before = len(weaker.levels)
    torch.testing.assert_close(f(net, NOISE, gnet=weaker), HEUN.sample(edm.field(net), NOISE))
    assert len(weaker.levels) == before  # scale 1 does not call it


def generate(sampler_fn, net, gnet=None, **settings):
    """EDM2's generation: noise and one-hot labels from the attributes, and everything by name."""
    generator = torch.Generator().manual_seed(1)
    size = (4, net.img_channels, net.img_resolution, net.img_resolution)
    noise = torch.randn(size, generator=generator)
    labels = None
    if net.label_dim > 0:
        labels = torch.eye(net.label_dim)[torch.randint(net.label_dim, (4,), generator=generator)]
    gnet = net if gnet is None else gnet
    return sampler_fn(net=net, noise=noise, labels=labels, gnet=gnet, randn_like=torch.randn_like, **settings)


def test_it_is_a_sampler_fn(exact, net):
    images = generate(edm.sampler(HEUN), net, num_steps=5, rho=7, sigma_max=80, S_churn=0, S_noise=1.003)
    assert images.shape == (4, *SHAPE)
    field = exact(Cosine(), "velocity").field()
    assert generate(edm.sampler(fs.classical.euler(3), Cosine()), field.denoiser()).shape == (4, *SHAPE)


def test_diff_samplers_settings_are_taken_where_they_agree(net):
    own = {"num_steps": 6, "sigma_min": 0.002, "sigma_max": 80.0, "schedule_type": "polynomial",
           "schedule_rho": 7, "afs": False, "denoise_to_zero": False, "return_inters": False,
           "t_steps": None}  # fmt: skip
    f = edm.sampler(HEUN)
    assert torch.equal(f(net, NOISE, class_labels=None, condition=None, **own), f(net, NOISE))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_steps": 18}, "num_steps=18 asks for another sampling than solver .edm_heun. makes with 9 "
                            "calls in 5 steps, whose own is 5; leave it out"),
        ({"sigma_max": 40}, "sigma_max=40 asks.*whose own is 80"),
        ({"rho": 3}, "rho=3 asks.*whose own is 7"),
        ({"S_churn": 40}, "S_churn=40 asks"),
        ({"schedule_type": "logsnr"}, "schedule_type='logsnr' asks"),
        ({"afs": True}, "afs=True asks"),
        ({"return_inters": True}, "return_inters=True asks"),
        ({"solver": "euler"}, "solver='euler' asks"),
        ({"t_steps": [80.0, 1.0]}, r"t_steps=\[80.0, 1.0\] asks"),
        ({"sigma_min": 0.0}, "sigma_min must be above zero and below 80, not 0.0"),
        ({"guidance": 2}, "guidance=2 needs gnet"),
        ({"net": "net.pkl"}, r"must be a denoiser, not a str; pass net\(x, sigma\)"),
        ({"gnet": fs.Field(lambda x, t: x)}, r"must be a denoiser, not a Field; pass field.denoiser\(\)"),
        ({"noise": NOISE}, "noise and latents are two names of one argument"),
        ({"latents": None}, "latents .* is missing"),
        ({"latents": [1.0]}, "latents: must be a floating-point tensor"),
    ],
)  # fmt: skip
def test_other_samplings_are_refused(net, settings, words):
    with pytest.raises(ValueError, match=words):
        edm.sampler(HEUN)(**{"net": net, "latents": NOISE, **settings})


def test_levels_that_the_network_does_not_have_are_refused(exact, net):
    net.sigma_max = 50.0
    with pytest.raises(ValueError, match=r"begins at noise level 80, above sigma_max = 50 of the network"):
        edm.sampler(HEUN)(net, NOISE)
    field = exact(VP(), "velocity").field()
    with pytest.raises(ValueError, match=r"noise level 1e\+05, above sigma_max = 152.2"):
        edm.sampler(fs.classical.euler(2), CondOT())(field.denoiser(), NOISE)
    with pytest.raises(ValueError, match="solver is a NoneType, but must be a"):
        edm.sampler(None, EDM)


def test_the_schedule_is_that_of_the_fit_by_default(net):
    facts = edm.field(net).describe()
    solver = replace(fs.classical.euler(3), fitted_for=facts)
    assert edm.sampler(solver).sigmas[0] == 80
    other = {**facts, "schedule": VE(50.0).to_dict()}
    for fitted_for in (None, {"model": "m"}, {**facts, "also": [other]}):
        with pytest.raises(ValueError, match="which names no schedule; pass schedule="):
            edm.sampler(replace(solver, fitted_for=fitted_for))
    assert edm.sampler(replace(solver, fitted_for={**facts, "also": [facts]})).schedule == EDM


def test_solvers_fitted_for_something_else_warn(exact, net):
    solver = replace(HEUN, fitted_for=edm.field(net).describe())
    labels, weaker = torch.eye(3)[[0, 2, 1, 2]], Net(exact)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edm.sampler(solver)(net, NOISE)
        field = exact(Cosine(), "velocity").field("a flow")
        fitted = replace(fs.classical.euler(2), fitted_for=field.describe())
        edm.sampler(fitted)(field.denoiser(), NOISE)
        edm.sampler(solver)(lambda x, sigma: x, NOISE)  # a function has no name of its own
    with pytest.warns(UserWarning, match="guidance None, but this field has guidance 2"):
        edm.sampler(solver)(net, NOISE, labels, gnet=weaker, guidance=2)
    with pytest.warns(UserWarning, match="model a flow, but this field has model Net"):
        edm.sampler(replace(fitted, fitted_for={**field.describe(), "schedule": EDM.to_dict()}), EDM)(
            net, NOISE
        )
