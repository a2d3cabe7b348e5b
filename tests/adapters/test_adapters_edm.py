"""Denoisers of EDM and k-diffusion."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.adapters import edm, k_diffusion
from fewstep.schedules import VE

LEVELS = [0.0, 1e-3, 0.002, 0.5, 80.0]


class Denoiser(nn.Module):
    """``D(x, sigma)`` of a mixture, with the attributes of EDM's networks and nothing learned."""

    img_channels, img_resolution = 1, 2

    def __init__(self, exact, sigma_min=0.0, sigma_max=math.inf):
        super().__init__()
        self.path = VE(200.0)
        self.data = exact(self.path, "data")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.told = []
        self.eval()

    def forward(self, x, sigma, class_labels=None):
        assert sigma.shape == (len(x),)
        self.told += sigma.tolist()
        shift = 0 if class_labels is None else class_labels.reshape(-1, 1, 1, 1)
        return self.data(x, self.path.inverse_log_snr(-sigma.log())) + shift


@pytest.fixture(params=[edm, k_diffusion], ids=["edm", "k_diffusion"])
def adapter(request):
    return request.param


def test_a_denoiser_gives_the_exact_velocity(adapter, exact, deviation):
    field = adapter.field(Denoiser(exact))
    assert field.schedule == VE()
    assert deviation(field, VE(80.0, 0.0, 7.0)) < 1e-9
    # The same denoiser at other times of the same levels is another field.
    assert deviation(field, VE(80.0, 0.0, 3.0)) > 0.1


def test_levels_and_their_spacing_may_be_chosen(adapter, exact, deviation):
    field = adapter.field(Denoiser(exact), sigma_max=10.0, rho=1.0)
    assert deviation(field, VE(10.0, 0.0, 1.0), times=(0.0, 0.2, 0.9)) < 1e-9


@pytest.mark.parametrize(
    ("own", "levels"),
    [((0.0, math.inf), (0.002, 80.0)), ((0.02, 100.0), (0.02, 80.0)), ((1e-4, 14.6), (0.002, 14.6))],
)
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_the_network_is_told_no_level_it_was_not_trained_at(adapter, exact, own, levels, kind):
    net = Denoiser(exact, *map(kind, own))
    field = adapter.field(net)
    x = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    for t in (0.0, 0.5, 0.9, torch.tensor([0.95, 1.0], dtype=torch.float64)):
        assert bool(field(x, t).isfinite().all())
    field.predict(x, 1.0)
    assert (min(net.told), max(net.told)) == pytest.approx(levels, rel=1e-6)


def test_pure_data_is_reached_without_a_level_of_zero(adapter, exact):
    """A solver whose last call is at t = 1, and the reference, which asks close to it."""
    field = adapter.field(Denoiser(exact))
    noise = fs.noise(3, (1, 2, 2), seed=0, dtype=torch.float64)
    reference = fs.reference.solve(field, noise, rtol=1e-6, atol=1e-6).states[-1]
    velocity = exact(VE(), "velocity").field()
    expected = fs.reference.solve(velocity, noise, rtol=1e-8, atol=1e-8).states[-1]
    # Up to sigma_min^2 times the score; a hundred times that if D were held instead of the noise.
    torch.testing.assert_close(reference, expected, rtol=0, atol=3e-5)
    assert bool(fs.classical.heun(4).sample(field, noise).isfinite().all())


def test_below_the_least_level_the_expected_noise_stays_the_same(adapter, exact):
    field, x = (
        adapter.field(Denoiser(exact), sigma_min=0.3, rho=1.0),
        torch.ones(2, 1, 2, 2, dtype=torch.float64),
    )
    noise = [field.predict_as("noise", x, 1 - sigma / 80) for sigma in (0.3, 0.2, 1e-3)]
    torch.testing.assert_close(noise[1], noise[0])
    torch.testing.assert_close(noise[2], noise[0])
    # One Euler step to zero, as EDM's sampler takes it, ends in the denoised state.
    step = fs.classical.euler(grid=[1 - 0.3 / 80, 1.0]).sample(field, field.initial_noise(x))
    torch.testing.assert_close(step, Denoiser(exact)(x, torch.full((2,), 0.3, dtype=torch.float64)))


def test_the_shape_is_that_of_the_networks_images(exact):
    assert edm.field(Denoiser(exact)).shape == (1, 2, 2)
    assert edm.field(Denoiser(exact), shape=(1, 4, 4)).shape == (1, 4, 4)
    assert edm.field(lambda x, sigma: x).shape is None


def test_labels_are_conditions_and_a_guide_is_a_network_of_the_same_kind(adapter, exact):
    net, guide = Denoiser(exact), Denoiser(exact, sigma_min=0.5)
    x, labels = torch.ones(2, 1, 2, 2, dtype=torch.float64), torch.tensor([1.0, 2.0])
    guided = adapter.field(net, guidance=3.0, unconditional={"class_labels": None})
    plain = adapter.field(net)
    D = net(x, torch.full((2,), 2.0, dtype=torch.float64))
    t = float(guided.schedule.inverse_log_snr(-math.log(2.0)))
    shift = labels.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(guided.predict(x, t, class_labels=labels), D + 3 * shift)
    torch.testing.assert_close(plain.predict(x, t, class_labels=labels), D + shift)
    auto = adapter.field(net, guidance=2.0, guide=guide)
    torch.testing.assert_close(auto.predict(x, t, class_labels=labels), D + shift)


def test_fields_that_are_told_different_levels_are_told_apart(adapter, exact):
    net = Denoiser(exact)
    fields = [adapter.field(net), adapter.field(net, sigma_min=0.01), adapter.field(net, sigma_max=50.0)]
    assert len({field.fingerprint() for field in fields}) == 3
    assert fields[0].describe()["clock"] == "sigma"
    assert fields[0].describe()["model"] == "Denoiser"


def test_a_field_is_no_denoiser(adapter, exact):
    for arguments in ({"guide": exact(VE(), "data").field(), "guidance": 2.0}, {}):
        net = Denoiser(exact) if arguments else exact(VE(), "data").field()
        with pytest.raises(ValueError, match=r"must be a denoiser, not a Field; pass field.denoiser\(\)"):
            adapter.field(net, **arguments)


@pytest.mark.parametrize("levels", [(2.0, 1.0), (0.0, 1.0), (0.1, math.inf)])
def test_levels_must_increase_from_above_zero(adapter, exact, levels):
    with pytest.raises(ValueError, match="must be positive and increasing"):
        adapter.field(Denoiser(exact), sigma_min=levels[0], sigma_max=levels[1])


class Raw(nn.Module):
    """The raw network that, preconditioned, is a given denoiser: eq. 7 solved for ``F``."""

    def __init__(self, denoise, sigma_data):
        super().__init__()
        self.denoise, self.sigma_data = denoise, sigma_data
        self.eval()

    def forward(self, scaled, c_noise, **conditions):
        sigma, s = torch.exp(4 * c_noise), self.sigma_data
        root = torch.hypot(sigma, torch.tensor(s, dtype=sigma.dtype))
        level = sigma.reshape(-1, 1, 1, 1)
        x = scaled * root.reshape(-1, 1, 1, 1)
        D = self.denoise(x, sigma, **conditions)
        skip, out = s**2 / root.square(), sigma * s / root
        assert bool(level.isfinite().all())
        return (D - skip.reshape(-1, 1, 1, 1) * x) / out.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_preconditioning_makes_the_denoiser_of_a_raw_network(exact, deviation, sigma_data):
    denoiser = Denoiser(exact)
    net = edm.Preconditioned(Raw(denoiser, sigma_data), sigma_data)
    x = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    for level in LEVELS[2:]:
        sigma = torch.full((2,), level, dtype=torch.float64)
        torch.testing.assert_close(net(x, sigma, class_labels=sigma), denoiser(x, sigma, class_labels=sigma))
    assert deviation(edm.field(net), VE()) < 1e-9


def test_preconditioning_is_finite_without_noise():
    seen = []

    class Linear(nn.Module):
        def forward(self, x, c_noise):
            seen.append(c_noise)
            return x / c_noise.reshape(-1, 1)

    net = edm.Preconditioned(Linear().eval())
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x, torch.zeros(2)), x)
    net(x, torch.tensor([0.002, 1e-9]))
    torch.testing.assert_close(seen[0], torch.full((2,), math.log(0.002) / 4))
    torch.testing.assert_close(seen[0], seen[1])


def test_preconditioned_networks_are_told_apart_by_their_data(exact):
    raw = Raw(Denoiser(exact), 0.5)
    assert edm.field(edm.Preconditioned(raw)).fingerprint() != (
        edm.field(edm.Preconditioned(raw, 1.0)).fingerprint()
    )
    other = edm.Preconditioned(raw, 1.0)
    other.load_state_dict(edm.Preconditioned(raw, 0.7).state_dict())
    assert other.sigma_data == 0.7


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: edm.Preconditioned(lambda x, c: x), "network must be a module, not a function"),
        (
            lambda: edm.Preconditioned(nn.Identity(), 0.0),
            "sigma_data and sigma_min must be positive, not 0.0 and 0.002",
        ),
    ],
)
def test_what_cannot_be_preconditioned_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("derive", ["denoiser", "scheduler"])
def test_states_stay_in_float32_around_a_raw_network_of_half_precision(dtype, derive):
    """Near the data the velocity is (x - D) / sigma: states of half precision would leave nothing of it."""

    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(2, dtype=dtype))
            self.eval()

        def forward(self, x, c_noise):
            assert x.dtype == self.weight.dtype
            return x @ self.weight

    def field(network):
        if derive == "denoiser":
            return fs.adapters.edm.field(fs.adapters.edm.Preconditioned(network))
        diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
        return fs.adapters.diffusers.field(network, diffusers.EDMEulerScheduler())

    x = 3 * fs.noise(50, (2,))
    exact, found = (field(network)(x, 0.97).detach() for network in (Raw().float(), Raw()))
    assert float((found - exact).norm() / exact.norm()) < 2 * torch.finfo(dtype).eps
