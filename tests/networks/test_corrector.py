"""The networks that correct states, against strided convolutions of PyTorch."""

import pytest
import torch
from torch.nn import functional as F

from fewstep.networks import Corrector
from fewstep.networks.corrector import _patches, _pixels

CONVOLUTIONS = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d)}
CONVOLUTIONS[3] = (F.conv3d, F.conv_transpose3d)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("size", [(12,), (6, 12), (6, 12, 6)])
def test_convolutions_of_patches_are_strided_ones(size, patch):
    torch.manual_seed(0)
    axes, channels, width = len(size), 10, 8
    corrector = Corrector((channels, *size), 2, [2], width=width, patch=patch).double()
    (part,) = corrector.parts.values()
    network = part.network
    with torch.no_grad():
        for weight in corrector.parameters():
            weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
        if part.linear is not None:
            part.linear.weight.zero_()
            part.linear.bias.zero_()
    x0, *predictions, x = torch.randn(4, 5, channels, *size, dtype=torch.float64)
    corrector.normalise(2, x0, predictions, x, torch.tensor(0.5))

    found = corrector(2, x0, predictions, x)

    down, up = CONVOLUTIONS[axes]
    inputs = torch.einsum("ij,jb...->bi...", part.mix, torch.stack([x0, *predictions, x])).flatten(1, 2)
    weight = network.stem.weight.view(width, 4 * channels, *[patch] * axes)
    h = down(inputs, weight, network.stem.bias, stride=patch)
    h = h + F.interpolate(network.places, h.shape[2:], mode=network.mode)
    for block in network.blocks:
        h = h + block(h)
    weight = network.head.weight.view(channels, *[patch] * axes, width).movedim(-1, 0)
    biases = network.head.bias.view(channels, *[patch] * axes).repeat(1, *[count // patch for count in size])
    expected = x + 0.5 * (up(h, weight, stride=patch) + biases)
    torch.testing.assert_close(found, expected)


def test_patches_are_those_of_pixel_unshuffle():
    x = torch.randn(2, 3, 8, 12)
    assert torch.equal(_patches(x, 4), F.pixel_unshuffle(x, 4))
    assert torch.equal(_pixels(_patches(x, 4), 4), x)


def mixed(own):
    """What the networks read of a state combined of the first state and a prediction, and something own."""
    corrector = Corrector((300,), 2, [2])
    x0, first, second, x = torch.randn(4, 200, 300, generator=torch.Generator().manual_seed(0))
    x = 0.7 * x0 + 0.3 * first + own * x
    corrector.normalise(2, x0, [first, second], x, torch.tensor(1.0))
    inputs = torch.stack([x0, first, second, x])
    return torch.einsum("ij,jbk->ibk", corrector.parts["2"].mix, inputs).flatten(1)


def test_the_inputs_are_made_uncorrelated():
    found = mixed(0.1)
    torch.testing.assert_close(found @ found.T / found.shape[1], torch.eye(4), rtol=1e-2, atol=1e-2)


def test_the_rounding_of_a_combination_is_no_input():
    """Else corrections of the states before, which are much larger, would take it far beyond 1."""
    assert mixed(0.0)[3].square().mean().sqrt() < 1e-2
    assert 0.5 < mixed(0.01)[3].square().mean().sqrt() < 1


def test_corrections_of_samples_far_away_are_bounded():
    corrector = Corrector((2,), 1, [1])
    with torch.no_grad():
        corrector.parts["1"].linear.weight.fill_(1.0)
    x = torch.tensor([[0.1, 0.1], [100.0, 200.0]])
    x0 = u = torch.zeros(2, 2)
    corrector.parts["1"].scale.fill_(0.5)
    changes = (corrector(1, x0, [u], x) - x).detach()
    torch.testing.assert_close(changes[0], torch.tensor([0.1, 0.1]))
    assert changes[1].square().mean().sqrt() == pytest.approx(8 * 0.5)
