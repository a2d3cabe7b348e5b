"""The rough fields of the benchmarks, and the recipe that trains their networks."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import fewstep as fs
from fewstep.schedules import DDPM, CondOT

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import rough_networks

RECIPE = Path(__file__).parents[1] / "recipes" / "rough_mnist.py"
trained = pytest.mark.parametrize("name", ["flow", "ddpm"])


def exact(x, t):
    return fs.models.random_mixture(16, 8, std=0.2)(x, t)


@trained
def test_trained_networks_are_declared_as_they_were_trained(name):
    field = rough_networks.load(name)
    expected = {"flow": (CondOT(), "velocity"), "ddpm": (DDPM("linear", 1e-4, 0.02, 300), "noise")}[name]
    assert (field.schedule, field.prediction) == expected
    assert field.shape == (1, 28, 28)
    assert 3e5 < sum(weight.numel() for weight in field.model.parameters()) < 1e6
    assert not any(weight.requires_grad for weight in field.model.parameters())
    x, t = fs.noise(3, field.shape), 0.6
    torch.testing.assert_close(field(x, t)[1:2], field(x[1:2], t), atol=1e-4, rtol=1e-4)


@trained
def test_trained_networks_denoise(name):
    """Of a picture in little noise they return nearly that picture, so the time that they get is right."""
    field = rough_networks.load(name)
    picture = torch.full((1, 1, 28, 28), -1.0)
    picture[..., 6:22, 13:16] = 1  # a one
    at = field.schedule(0.8)
    x = at.alpha.float() * picture + at.sigma.float() * fs.noise(8, field.shape)
    before = (x / at.alpha.float() - picture).square().mean().sqrt()
    after = (field.predict_as("data", x, 0.8) - picture).square().mean().sqrt()
    assert after < before / 2


def test_the_weights_are_small_and_in_half_precision():
    files = sorted(rough_networks.WEIGHTS.glob("rough-*.safetensors"))
    assert [file.stem for file in files] == ["rough-ddpm", "rough-flow"]
    assert sum(file.stat().st_size for file in files) < 4e6
    for file in files:
        with safe_open(file, "pt") as opened:
            types = {opened.get_tensor(key).dtype for key in opened.keys()}
        assert types == {torch.float16, torch.int64}  # BatchNorm counts its batches


def test_features_of_time():
    fourier = rough_networks.FourierTime(20_000)
    t = torch.tensor([0.0, 0.25])
    assert fourier.frequencies.std() / (2 * np.pi) == pytest.approx(30, rel=0.03)
    torch.testing.assert_close(fourier(t)[:, :10_000], (t[:, None] * fourier.frequencies).sin())
    features = rough_networks.SinusoidalTime(4)(torch.tensor([7.0]))
    expected = [np.sin(7), np.cos(7), np.sin(0.07), np.cos(0.07)]
    np.testing.assert_allclose(features[0], expected, atol=1e-6)


def test_a_rounded_time_has_300_levels():
    field, x = rough_networks.ROUGH["mixture-rounded"](), fs.noise(1, (16,)).double()
    t = torch.linspace(0, 1, 5981, dtype=torch.float64)  # twenty to a level
    values = field(x.expand(len(t), -1), t)
    assert len(values.unique(dim=0)) == 300
    torch.testing.assert_close(values[::20], exact(x.expand(300, -1), t[::20]))


def test_noise_is_a_function_of_one_percent():
    field, x = rough_networks.ROUGH["mixture-noisy"](), fs.noise(512, (16,), seed=1)

    def noise(x, t):
        return field(x, t) - exact(x, torch.tensor(t))

    def correlation(a, b):
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    first = noise(x, 0.4)
    assert torch.equal(first, noise(x, 0.4))
    assert torch.equal(field(x, 0.4), rough_networks.ROUGH["mixture-noisy"]()(x, 0.4))
    assert torch.equal(first, noise(x.flip(0), 0.4).flip(0))
    relative = first.square().mean(1).sqrt() / exact(x, torch.tensor(0.4)).square().mean(1).sqrt()
    assert relative.square().mean().sqrt() == pytest.approx(0.01, rel=0.05)
    assert correlation(first, noise(x, 0.4 + 1e-4)) > 0.99
    assert abs(correlation(first, noise(x, 0.5))) < 0.2
    assert abs(correlation(first, noise(x + 0.1, 0.4))) < 0.2


def test_states_weights_and_outputs_are_in_bfloat16():
    field, x = rough_networks.ROUGH["mixture-bf16"](), fs.noise(64, (16,)).float()
    assert field.dtype == torch.bfloat16
    values = field(x, 0.5)
    assert values.dtype == torch.float32
    assert torch.equal(values, values.bfloat16().float())
    assert torch.equal(values, field(x.bfloat16().float(), 0.5))
    assert torch.equal(field.model.network.means, field.model.network.means.bfloat16().double())
    error = (values - exact(x, torch.tensor(0.5))).square().mean().sqrt()
    assert 5e-4 < error / values.square().mean().sqrt() < 0.05


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """``recipe(*arguments)`` runs it on random pictures, and returns the folder of its weights."""
    pictures = np.random.default_rng(0).integers(0, 256, (130, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x_train=pictures)

    def run(*arguments):
        places = ["--data", tmp_path / "pictures.npz", "--out", tmp_path / "run", "--weights", tmp_path]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in (RECIPE, *places, *arguments)])
        runpy.run_path(str(RECIPE), run_name="__main__")
        return tmp_path

    return run


@trained
def test_the_recipe_stops_in_time_and_goes_on(recipe, name, capsys):
    recipe("--network", name, "--steps", "2", "--minutes", "0")
    assert "stopped at step" in capsys.readouterr().out
    folder = recipe("--network", name, "--steps", "2")
    weights = rough_networks.load(name, folder).model.state_dict()
    assert all(weight.isfinite().all() for weight in weights.values())
    torch.manual_seed(0)
    start = rough_networks.NETWORKS[name]().state_dict()
    assert (weights["stem.weight"] - start["stem.weight"]).abs().max() > 1e-5
    with safe_open(folder / f"rough-{name}.safetensors", "pt") as file:
        assert file.metadata()["trained_by"].endswith(f"--network {name} --steps 2")
        assert file.get_tensor("stem.weight").dtype == torch.float16


def test_the_loss_of_noise_prediction_is_zero_for_the_noise():
    alphas_cumprod = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 300))).float()

    class Oracle(nn.Module):
        def forward(self, x, k):
            assert k.dtype == torch.int64
            product = alphas_cumprod[k].view(-1, 1, 1, 1)
            return (x - 0.5 * product.sqrt()) / (1 - product).sqrt()

    objective = runpy.run_path(str(RECIPE))["NoisePrediction"](Oracle(), schedule=DDPM(steps=300))
    data = torch.full((512, 1, 4, 4), 0.5)
    assert objective(data, generator=torch.Generator().manual_seed(0))["loss"] < 1e-6
