"""Fields as denoisers of ``data + sigma noise``, in loops written as EDM's and k-diffusion's are."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine, Polynomial

SHAPE = (1, 2, 2)
X = fs.noise(5, SHAPE, seed=1, dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.4, 0.7, -0.2], [0.9, 0.1, -0.8, 0.5]], dtype=torch.float64).reshape(2, *SHAPE)
LEVELS = [0.02, 0.5, 3.0, 70.0]
SCHEDULES = [CondOT(), VP(), Cosine(), Polynomial(2.0), VE(90.0, 0.01), DDPM()]

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)


def mixture(schedule, prediction="velocity"):
    return fs.models.GaussianMixture(MEANS, [0.5, 0.3], [0.3, 0.7], schedule, prediction).field()


def expected_data(x, sigma):
    """The posterior mean of the data given ``data + sigma noise``, from Bayes' rule."""
    variances, weights = torch.tensor([[[0.25], [0.09]], [[0.3], [0.7]]], dtype=torch.float64)
    flat, means = x.flatten(1), MEANS.flatten(1)
    sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1, 1).expand(len(x), 1, 1)
    v = variances + sigma**2  # (B, K, 1)
    distance = flat[:, None] - means
    log = weights.log() - distance.square().sum(-1, keepdim=True) / (2 * v) - flat.shape[1] / 2 * v.log()
    data = means + variances / v * distance
    return (log.softmax(1) * data).sum(1).reshape(x.shape)


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise", "v"])
@each_schedule
def test_the_expected_data_are_exact(schedule, prediction):
    D = mixture(schedule, prediction).denoiser()
    for sigma in LEVELS:
        x = 0.3 + sigma * X
        torch.testing.assert_close(D(x, sigma), expected_data(x, sigma), rtol=1e-8, atol=1e-8)
    sigma = torch.tensor([0.02, 0.1, 0.5, 3.0, 70.0], dtype=torch.float64)
    x = 0.3 + sigma.reshape(-1, 1, 1, 1) * X
    for shaped in (sigma, sigma.reshape(-1, 1, 1, 1)):
        torch.testing.assert_close(D(x, shaped), expected_data(x, sigma), rtol=1e-8, atol=1e-8)


def test_one_level_may_have_any_shape():
    D = mixture(CondOT()).denoiser()
    for sigma in (3, torch.tensor(3.0), torch.tensor([3.0]), torch.tensor(3).reshape(1, 1, 1, 1)):
        torch.testing.assert_close(D(X, sigma), expected_data(X, 3.0))
        torch.testing.assert_close(D(X[:1], sigma), expected_data(X[:1], 3.0))


def test_without_noise_the_data_are_the_state():
    for schedule in (CondOT(), Cosine(), VP(), VE(90.0)):
        torch.testing.assert_close(mixture(schedule).denoiser()(X, 0.0), X, rtol=0, atol=1e-7)


@each_schedule
def test_the_levels_are_those_of_the_path(schedule):
    D = mixture(schedule).denoiser()
    alpha, sigma = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))[:2]
    assert D.sigma_min == pytest.approx(float(sigma[1] / alpha[1]))
    assert D.sigma_max == (math.inf if alpha[0] == 0 else pytest.approx(float(sigma[0] / alpha[0])))
    rounded = D.round_sigma(torch.tensor([0.0, 1.0, 1e5]))
    torch.testing.assert_close(rounded, torch.tensor([D.sigma_min, 1.0, min(D.sigma_max, 1e5)]))
    assert D(X, D.sigma_min).isfinite().all()
    assert D(X, torch.tensor(min(D.sigma_max, 1e4))).isfinite().all()  # rounded to float32


@pytest.mark.parametrize(
    ("schedule", "sigma", "words"),
    [
        (VP(), 200.0, r"within 0 and 152.2, .* not 200; take round_sigma\(sigma\)"),
        (VP(), torch.tensor([1.0, 1, 1, 500, 1]), "not 500"),
        (VE(80.0, 0.01), 1e-4, "within 0.01 and 80, .* not 0.0001"),
        (CondOT(), -1.0, "within 0 and inf, .* not -1"),
        (CondOT(), math.inf, "not inf"),
        (CondOT(), math.nan, "not nan"),
        (CondOT(), None, "must be a noise level, a number or a tensor, not None"),
        (CondOT(), torch.ones(3), r"one for each of 5 states, not of shape \(3,\)"),
    ],
)
def test_other_levels_are_refused(schedule, sigma, words):
    with pytest.raises(ValueError, match=words):
        mixture(schedule).denoiser()(X, sigma)


def test_other_levels_are_nan_where_nothing_may_be_read(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    D, sigma = mixture(VP()).denoiser(), torch.tensor([1.0, 500.0, 2.0, 0.5, -1.0])
    found = D(X, sigma)
    assert found.isnan().flatten(1).all(1).tolist() == [False, True, False, False, True]
    torch.testing.assert_close(found[::2][:2], expected_data(X, sigma.abs())[::2][:2])


def test_the_output_has_the_type_of_the_state():
    D = mixture(CondOT()).denoiser()
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert D(X.to(dtype), torch.tensor(2.0, dtype=torch.float64)).dtype == dtype


class Labelled(nn.Module):
    label_dim = 7

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.eval()

    def forward(self, x, t, **conditions):
        self.seen = conditions
        return x


def test_labels_have_the_networks_name_and_other_conditions_pass():
    net, x = Labelled(), torch.ones(2, 3)
    D = fs.Field(net, prediction="data").denoiser(labels="y")
    D(x, 1.0, torch.tensor([3, 4]), text="a")
    assert net.seen["y"].tolist() == [3, 4]
    assert net.seen["text"] == "a"
    D(x, 1.0, class_labels=None)
    assert net.seen == {}
    fs.Field(net, prediction="data").denoiser()(x, 1.0, 5)
    assert net.seen == {"class_labels": 5}


def test_it_has_the_attributes_of_edms_networks():
    net = Labelled()
    D = fs.adapters.edm.field(net, shape=(3, 8, 8)).denoiser()
    assert (D.img_channels, D.img_resolution, D.label_dim) == (3, 8, 7)
    assert [*D.parameters()] == [net.weight]
    assert mixture(CondOT()).denoiser().label_dim == 0
    for shape in (None, (4,), (3, 8, 16)):
        D = fs.Field(lambda x, t: x, shape=shape).denoiser()
        with pytest.raises(
            AttributeError, match=r"img_resolution is that of square images, but the field has"
        ):
            _ = D.img_resolution
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = D.other


def test_copies_are_whole():
    D = mixture(CondOT()).denoiser()
    assert torch.equal(copy.deepcopy(D)(X, 1.0), D(X, 1.0))


@each_schedule
def test_a_loop_of_edm_takes_the_steps_of_edm_heun(schedule):
    """Karras et al. (2022), algorithm 1, in float64, from the levels of eq. 5 and zero."""
    D, steps = mixture(schedule).denoiser(), 7
    low, high = max(0.02, D.sigma_min), min(60.0, D.sigma_max)
    ramp = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    sigmas = D.round_sigma((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7)
    sigmas = torch.cat([sigmas, torch.zeros(1)])
    x = X * sigmas[0]
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - D(x, now)) / now
        euler = x + (then - now) * slope
        if then == 0:
            x = euler
        else:
            x = x + (then - now) * (slope + (euler - D(euler, then)) / then) / 2
    path = VE(high, 0.0, 7.0)
    grid = [*path.inverse_log_snr(-sigmas[:-1].log()).clamp(min=0).tolist(), 1.0]
    ours = fs.classical.edm_heun(grid=grid, schedule=path).sample(mixture(schedule).reschedule(path), X)
    torch.testing.assert_close(ours, x, rtol=1e-11, atol=1e-11)


@each_schedule
def test_the_denoiser_is_a_network_of_edm(schedule):
    field = mixture(schedule)
    back = fs.adapters.edm.field(field.denoiser())
    exact = mixture(back.schedule)
    assert back.shape == SHAPE
    for t in (0.0, 0.4, 0.7):
        x = float(back.schedule(t).sigma) * X
        torch.testing.assert_close(back(x, t), exact(x, t), rtol=1e-7, atol=1e-7)


def test_guidance_is_inside():
    net = fs.models.GaussianMixture(MEANS, 0.4)
    field = fs.Field(lambda x, t, shift=0.0: net(x, t) + shift, guidance=3.0, unconditional={"shift": 0.0})
    sigma = 0.25  # t = 0.8
    difference = field.denoiser()(X, sigma, shift=1.0) - field.with_guidance(1).denoiser()(X, sigma)
    torch.testing.assert_close(difference, torch.full_like(X, 3.0 * (1 - 0.8)))
