"""The fields that come with the package."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.models import bundled, load_network, save_network
from fewstep.networks import MLP, UNet


@pytest.mark.parametrize(("name", "shape"), [("digits", (1, 8, 8)), ("mixture", (24,))])
def test_a_bundled_field_samples(name, shape):
    field = bundled(name)
    x1 = fs.classical.midpoint(4).sample(field, fs.noise(4, shape))
    assert field.shape == shape
    assert bool(x1.isfinite().all())
    assert field.fingerprint() == bundled(name).fingerprint()


def test_the_digits_flow_makes_digits():
    """Samples have the mean picture of the data, which noise has not."""
    images, _ = fs.data.digits()
    x1 = fs.classical.midpoint(8).sample(bundled("digits"), fs.noise(256, (1, 8, 8)))
    assert float((x1.mean(0) - images.mean(0)).abs().max()) < 0.25
    assert float((x1.clamp(-1, 1) - x1).abs().mean()) < 0.05


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="no model 'cifar'; there are digits, mnist"):
        bundled("cifar")


@pytest.mark.parametrize(
    ("network", "shape"),
    [(MLP((3,), width=16, blocks=1), (3,)), (UNet(width=8, multipliers=(1, 2), blocks=1), (1, 8, 8))],
    ids=["MLP", "UNet"],
)
def test_networks_come_back_from_their_file(tmp_path, network, shape):
    path = tmp_path / "network.safetensors"
    save_network(path, network, recipe="test")
    loaded = load_network(path)
    x = fs.noise(2, shape)
    assert not loaded.training
    assert torch.equal(loaded(x, torch.tensor(0.3)), network.eval()(x, torch.tensor(0.3)))


def test_a_file_without_a_network_is_named(tmp_path):
    fs.Pairs(torch.zeros(1, 2), torch.zeros(1, 2)).save(tmp_path / "pairs.safetensors")
    with pytest.raises(ValueError, match=r"pairs\.safetensors: holds no network of fewstep"):
        load_network(tmp_path / "pairs.safetensors")
