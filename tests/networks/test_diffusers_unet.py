"""diffusers' UNet2DModel as a network of this package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.networks import DiffusersUNet, GaussianEncoder, load_network, save_network

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}


def make(**arguments):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**{**SMALL, **arguments}).eval().requires_grad_(False)


def test_the_unet_is_told_the_scaled_time():
    unet, x = make(), fs.noise(2, (1, 8, 8))
    network = DiffusersUNet(unet)
    expected = unet(x, torch.tensor([250.0, 500.0])).sample
    assert torch.equal(network(x, torch.tensor([0.25, 0.5])), expected)
    torch.testing.assert_close(network(x[:1], torch.tensor(0.25)), expected[:1])
    assert torch.equal(DiffusersUNet(unet, time_scale=1.0)(x, torch.tensor(250.0))[0], expected[0])


def test_it_is_a_field():
    field = fs.Field(DiffusersUNet(make()), shape=(1, 8, 8))
    assert bool(fs.classical.euler(2).sample(field, fs.noise(2, (1, 8, 8))).isfinite().all())


def test_conditions_pass_through():
    unet, x, labels = make(num_class_embeds=3), fs.noise(2, (1, 8, 8)), torch.tensor([0, 2])
    output = DiffusersUNet(unet)(x, torch.tensor(0.5), class_labels=labels)
    assert torch.equal(output, unet(x, 500.0 * torch.ones(2), class_labels=labels).sample)


def test_it_comes_back_from_its_file(tmp_path):
    network, x = DiffusersUNet(make(), time_scale=100.0), fs.noise(2, (1, 8, 8))
    save_network(tmp_path / "network.safetensors", network)
    loaded = load_network(tmp_path / "network.safetensors")
    assert torch.equal(loaded(x, torch.tensor(0.3)), network(x, torch.tensor(0.3)))
    assert not any(key.startswith("_") for key in network.config["unet"])  # notes on where it came from


def test_an_encoder_can_be_made_of_it(tmp_path):
    encoder, x = GaussianEncoder(DiffusersUNet(make(out_channels=2))).eval(), fs.noise(2, (1, 8, 8))
    assert not any(bool(moment.any()) for moment in encoder(x))
    save_network(tmp_path / "encoder.safetensors", encoder)
    assert not any(bool(moment.any()) for moment in load_network(tmp_path / "encoder.safetensors")(x))


@pytest.mark.parametrize("kind", ["fourier", "learned"])
def test_a_unet_that_cannot_take_every_time_is_refused(kind):
    with pytest.raises(ValueError, match=f"time_embedding_type='{kind}' cannot take every time"):
        DiffusersUNet(make(time_embedding_type=kind, num_train_timesteps=10))


def test_another_model_is_refused():
    with pytest.raises(ValueError, match=r"must be a diffusers\.UNet2DModel, not a Linear"):
        DiffusersUNet(nn.Linear(1, 1))
