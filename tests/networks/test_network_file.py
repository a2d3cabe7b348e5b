"""Writing networks to files, and what is said of files that hold none."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fewstep as fs
from fewstep.networks import MLP, GaussianEncoder, ReverseTime, SongUNet, UNet, load_network, save_network

SMALL = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1}


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (MLP((3,), width=16, blocks=1, out_channels=6), (3,)),
        (UNet(width=8, multipliers=(1, 2), blocks=1, out_channels=2), (1, 8, 8)),
        (SongUNet(8, 1, 2, **SMALL, time_scale=100.0), (1, 8, 8)),
        (ReverseTime(SongUNet(8, 1, 1, **SMALL)), (1, 8, 8)),
    ],
    ids=["MLP", "UNet", "SongUNet", "ReverseTime"],
)
def test_networks_come_back(tmp_path, network, shape):
    save_network(tmp_path / "network.safetensors", network, recipe="test")
    loaded = load_network(tmp_path / "network.safetensors")
    x, t = fs.noise(2, shape), torch.tensor(0.3)
    assert torch.equal(loaded(x, t), network.eval()(x, t))
    assert loaded.config == network.config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_an_encoder_comes_back_with_its_training(tmp_path):
    encoder = GaussianEncoder(MLP((2,), width=16, blocks=1, out_channels=4))
    with torch.no_grad():
        encoder.network.head.bias.copy_(torch.arange(4.0))
    save_network(tmp_path / "encoder.safetensors", encoder)
    mean, logvar = load_network(tmp_path / "encoder.safetensors")(torch.zeros(1, 2))
    assert mean.tolist() == [[0, 1]]
    assert logvar.tolist() == [[2, 3]]


class Nameless(nn.Module):
    config: dict[str, int] = {}  # noqa: RUF012


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(1, 1), r"a Linear has no \.config"),
        (Nameless(), "'Nameless' is not a network of this version of fewstep; there are .*SongUNet"),
        (ReverseTime(Nameless()), "'Nameless' is not a network"),
    ],
)
def test_a_network_that_could_not_be_read_is_not_written(tmp_path, network, message):
    with pytest.raises(ValueError, match=f"save_network: {message}"):
        save_network(tmp_path / "network.safetensors", network)
    assert not list(tmp_path.iterdir())


def test_files_that_are_damaged_or_absent_are_told(tmp_path):
    path = tmp_path / "network.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no such network file"):
        load_network(path)
    save_network(path, MLP((2,), width=8, blocks=1))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable network file"):
        load_network(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not complete JSON"),
        ('["MLP"]', "must hold one JSON object, not list"),
        (json.dumps({"class": "GAN", "arguments": {}}), "'GAN' is not a network of this version"),
        (json.dumps({"class": "SongUnet", "arguments": {}}), "'SongUnet' .* .did you mean 'SongUNet'"),
        (json.dumps({"class": "MLP", "arguments": {"depth": 3}}), "unexpected keyword argument 'depth'"),
        (
            json.dumps({"class": "MLP", "arguments": {"shape": [2], "width": 8, "blocks": 1}}),
            "missing 'embed",
        ),
    ],
)
def test_what_the_metadata_get_wrong_is_told(tmp_path, config, message):
    save_file({"a": torch.zeros(1)}, tmp_path / "network.safetensors", {"fewstep.network": config})
    with pytest.raises(ValueError, match=rf"network\.safetensors: .*{message}"):
        load_network(tmp_path / "network.safetensors")
