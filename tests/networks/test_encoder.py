"""Gaussian encoders made of each network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.networks import MLP, GaussianEncoder, SongUNet, UNet

SMALL = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1}
NETWORKS = {
    "MLP of points": (lambda: MLP((2,), width=16, blocks=1, out_channels=4), (2,)),
    "MLP of pictures": (lambda: MLP((3, 4, 4), width=16, blocks=1, out_channels=6), (3, 4, 4)),
    "UNet": (lambda: UNet(3, width=8, multipliers=(1,), blocks=1, out_channels=6), (3, 8, 8)),
    "SongUNet": (lambda: SongUNet(8, 3, 6, **SMALL), (3, 8, 8)),
}
each_network = pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS.keys())


@each_network
def test_an_encoder_begins_at_the_independent_coupling_exactly(build, shape):
    x = fs.noise(3, shape)
    mean, logvar = GaussianEncoder(build())(x)
    assert mean.shape == logvar.shape == x.shape
    assert not mean.any()
    assert not logvar.any()


@each_network
def test_a_step_of_training_moves_it(build, shape):
    """Zero is no trap: after a step or two, every layer before the last one has a gradient."""
    encoder, x = GaussianEncoder(build()), fs.noise(3, shape)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        mean, logvar = encoder(x)
        ((mean - x).square() + (logvar + 1).square()).sum().backward()
        optimizer.step()
    assert all(bool(p.grad.any()) for p in encoder.parameters())


def test_the_network_is_asked_at_data_and_its_first_half_is_the_mean():
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.output_layer = nn.Linear(1, 1)

        def forward(self, x, t):
            return torch.cat([x, t[:, None] * torch.ones_like(x)], dim=1)

    x = fs.noise(3, (2,))
    mean, logvar = GaussianEncoder(Probe())(x)
    assert torch.equal(mean, x)
    assert torch.equal(logvar, torch.ones_like(x))


def test_it_keeps_the_mode_of_the_network():
    assert not GaussianEncoder(MLP((2,), out_channels=4).eval()).training
    assert GaussianEncoder(MLP((2,), out_channels=4)).training


def test_moments_are_of_the_data_type_of_the_data():
    encoder, x = GaussianEncoder(SongUNet(8, 3, 6, **SMALL)), fs.noise(1, (3, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert all(moment.dtype == torch.float32 for moment in encoder(x))


@pytest.mark.parametrize("network", [UNet(3, width=8), MLP((3,), width=8), SongUNet(8, 3, 5, **SMALL)])
def test_a_network_of_other_channels_is_refused(network):
    with pytest.raises(
        ValueError, match=r"has [35] output channels for 3 input channels, but an encoder needs 6"
    ):
        GaussianEncoder(network)


def test_an_output_that_does_not_fit_the_data_is_refused():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.output_layer = nn.Linear(2, 3)

        def forward(self, x, t):
            return self.output_layer(x)

    with pytest.raises(ValueError, match=r"returned shape \(5, 3\) for an input of shape \(5, 2\)"):
        GaussianEncoder(Foreign())(torch.zeros(5, 2))


def test_a_network_without_a_named_last_layer_is_refused():
    with pytest.raises(ValueError, match="a Linear does not say which layer is its last"):
        GaussianEncoder(nn.Linear(2, 4))
