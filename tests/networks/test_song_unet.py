"""The DDPM++ U-Net, against outputs of the original implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.networks import SongUNet, song_unet_preset

GOLDEN = json.loads((Path(__file__).parent / "song_unet_golden.json").read_text(encoding="utf-8"))
TINY = {
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,
}


def numbers(count, k):
    """Pseudo-random numbers in [-1, 1] that integer arithmetic makes, and so every machine alike."""
    j = torch.arange(count)
    return ((j + k) ** 2 + 31 * (k + 1) * j) % 1013 / 506.0 - 1


@torch.no_grad()
def fill(network):
    """Weights of unit gain and biases about 0 (1 for norms), by the place of the name in sorted order."""
    for k, (name, parameter) in enumerate(sorted(network.named_parameters())):
        value = numbers(parameter.numel(), k).reshape(parameter.shape)
        if parameter.ndim > 1:
            parameter.copy_(value.double() * math.sqrt(3 / parameter[0].numel()))
        else:
            parameter.copy_(0.3 * value + ("norm" in name and name.endswith("weight")))
    return network.eval()


def tiny(channels_in=3, channels_out=3, **arguments):
    return fill(SongUNet(8, channels_in, channels_out, **{**TINY, **arguments}))


@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
def test_outputs_are_those_of_the_original(case):
    """Golden values: the class SongUNet in training/networks.py of NVlabs/edm, in float64 on a CPU.

    It was given the configuration in the file, the weights of ``fill``, the pictures below and the noise
    labels 0.25 and 7.5 as they stand. The file has eight entries of the flattened output and the root mean
    square of all. The original takes its sinusoids and softmax in float32 even then.
    """
    network = fill(SongUNet(**case["config"]))
    shape = (2, network.in_channels, *[case["config"]["img_resolution"]] * 2)
    x = 2 * numbers(math.prod(shape), 0).reshape(shape)
    with torch.no_grad():
        output = network(x, torch.tensor([0.25, 7.5])).flatten()
    chosen = output[[int(index) for index in case["outputs"]]]
    torch.testing.assert_close(chosen, torch.tensor(list(case["outputs"].values())), rtol=0, atol=1e-5)
    assert float(output.square().mean().sqrt()) == pytest.approx(case["rms"], abs=1e-5)


def test_names_and_shapes_are_those_of_the_original():
    """The state dict of the same class; order included, though loading does not need it."""
    state = SongUNet(**GOLDEN["flow"]["config"]).state_dict()
    assert [(name, list(value.shape)) for name, value in state.items()] == list(
        GOLDEN["flow"]["tensors"].items()
    )


@pytest.mark.parametrize(
    ("name", "flow", "encoder"),
    [
        ("mnist", 2_155_201, 2_155_778),
        ("cifar10", 55_732_739, 2_208_966),
        ("ffhq", 61_804_419, 2_475_654),
        ("afhq", 61_804_419, 2_475_654),
        ("celebahq256", 60_486_019, 2_425_350),
    ],
)
def test_presets_have_the_published_number_of_parameters(name, flow, encoder):
    """MNIST's and CIFAR-10's flow are documented; the others were counted with the original class."""
    with torch.device("meta"):
        networks = [SongUNet(**song_unet_preset(name, encoder=e)) for e in (False, True)]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [flow, encoder]


def test_presets_are_copies_and_unknown_ones_are_told():
    song_unet_preset("mnist")["channel_mult"].append(7)
    assert song_unet_preset("mnist")["channel_mult"] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"must be one of mnist, cifar10, .* not 'imagenet'"):
        song_unet_preset("imagenet")


def test_time_may_be_scalar_or_batch_and_the_batch_may_be_one():
    network, x = tiny(), fs.noise(3, (3, 8, 8))
    out = network(x, torch.tensor(0.3))
    torch.testing.assert_close(network(x, torch.full((3,), 0.3)), out, rtol=0, atol=1e-6)
    torch.testing.assert_close(network(x[:1], torch.tensor([0.3])), out[:1], rtol=0, atol=1e-5)
    torch.testing.assert_close(network(x[:1], torch.tensor(0.3)), out[:1], rtol=0, atol=1e-5)


def test_a_scaled_time_is_the_time_scaled():
    x, t = fs.noise(2, (3, 8, 8)), torch.tensor([0.25, 0.5])
    plain, scaled = tiny(), tiny(time_scale=1000.0)
    assert torch.equal(scaled(x, t), plain(x, 1000 * t))
    assert scaled.config["time_scale"] == 1000.0


def test_a_fresh_network_answers_with_almost_nothing():
    network = SongUNet(8, 3, 3, **TINY).eval().requires_grad_(False)
    assert float(network(fs.noise(2, (3, 8, 8)), torch.tensor(0.5)).abs().max()) < 1e-3


def test_initial_weights_have_their_variances():
    """Xavier's 2 / (fan_in + fan_out), times 0.2 for queries, keys and values, and 1e-10 at the ends."""
    torch.manual_seed(0)
    block = SongUNet(8, 3, 3, **{**TINY, "model_channels": 64}).enc["8x8_block0"]
    expected = {
        block.conv0: 2 / (2 * 64 * 9),
        block.affine: 2 / (256 + 64),
        block.conv1: 1e-10 * 2 / (2 * 64 * 9),
        block.qkv: 0.2 * 2 / (64 + 192),
        block.proj: 1e-10 * 2 / (2 * 64),
    }
    for layer, variance in expected.items():
        assert float(layer.weight.detach().square().mean()) == pytest.approx(variance, rel=0.1)
        assert not layer.bias.any()


def test_recomputing_changes_neither_output_nor_gradient():
    """With dropout, whose random numbers must come again."""
    x, t = fs.noise(2, (3, 8, 8)), torch.tensor([0.2, 0.8])
    results = []
    for checkpoint in (False, True):
        network = tiny(dropout=0.3, checkpoint=checkpoint).train()
        torch.manual_seed(0)
        network(x, t).square().sum().backward()
        results.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert "checkpoint" not in network.config


def test_recomputing_keeps_fewer_tensors():
    def kept(network):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda v: sizes.append(v.numel()) or v, lambda v: v):
            network(fs.noise(2, (3, 8, 8)), torch.tensor(0.5))
        return sum(sizes)

    assert kept(tiny(checkpoint=True).train()) < 0.5 * kept(tiny().train())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype):
    network, x, t = tiny(), fs.noise(2, (3, 8, 8)), torch.tensor([0.2, 0.8])
    with torch.no_grad():
        exact = network(x, t)
        with torch.autocast("cpu", dtype):
            automatic = network(x, t)
        whole = tiny().to(dtype)(x.to(dtype), t)
    assert automatic.dtype == whole.dtype == dtype
    for output in (automatic, whole):
        assert float((output.float() - exact).abs().max()) < (0.1 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize("automatic", [True, False])
def test_attention_is_taken_in_single_precision(monkeypatch, automatic):
    """Products of queries and keys may exceed 65504, the largest half."""
    seen, attention = [], torch.nn.functional.scaled_dot_product_attention

    def spy(*arguments):
        result = attention(*arguments)
        seen.extend(value.dtype for value in (*arguments, result))
        return result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    dtype = torch.float32 if automatic else torch.float16
    with torch.autocast("cpu", torch.float16, enabled=automatic):
        tiny().to(dtype)(fs.noise(2, (3, 8, 8)).to(dtype), torch.tensor(0.5))
    assert set(seen) == {torch.float32}
    assert len(seen) == 4 * 3  # of a block on the way down, one in the middle and one on the way up


def test_time_keeps_its_precision_in_a_half_network():
    """bfloat16 has no number between 0.5 and 0.50390625."""
    network, x = tiny(time_scale=1000.0).bfloat16(), fs.noise(1, (3, 8, 8)).bfloat16()
    assert not torch.equal(network(x, torch.tensor(0.5)), network(x, torch.tensor(0.501)))


def test_channels_last_and_double_give_the_same():
    network, x, t = tiny(), fs.noise(2, (3, 8, 8)), torch.tensor([0.2, 0.8])
    out = network(x, t)
    double = tiny().double()(x.double(), t.double())
    last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(last, out, rtol=0, atol=1e-5)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), out, rtol=0, atol=1e-5)


def test_samples_of_a_batch_do_not_see_each_other():
    network, x = tiny(), fs.noise(3, (3, 8, 8))
    t = torch.tensor([0.1, 0.5, 0.9])
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x, t), alone, rtol=0, atol=1e-5)


def test_every_weight_is_trained():
    network = tiny().train()
    network(fs.noise(2, (3, 8, 8)), torch.rand(2)).square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 8, 8), (3, 8, 8), (2, 3, 8, 4)])
def test_other_pictures_than_it_was_built_for_are_refused(shape):
    with pytest.raises(ValueError, match=r"x has shape .* but this network was built for \(B, 3, 8, 8\)"):
        tiny()(torch.zeros(shape), torch.tensor(0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_block": 2},
            "there is no argument 'num_block' .did you mean 'num_blocks'.*; there are img_resolution",
        ),
        ({"num_channels": 8, "unet_type": "adm"}, "unet_type='adm', guided-.* it must be 'songunet', and"),
        ({"label_dim": 10}, "label_dim=10 is not supported; it must be 0"),
        ({"augment_dim": 9}, "augment_dim=9 is not supported"),
        ({"embedding_type": "fourier"}, "embedding_type='fourier' is not supported; it must be 'positional'"),
        ({"encoder_type": "residual"}, "encoder_type='residual' is not supported"),
        ({"decoder_type": "skip"}, "decoder_type='skip' is not supported"),
        ({"channel_mult": [1, 2, 2, 2, 2]}, "img_resolution=8 cannot be halved .* multiple of 16"),
        ({"channel_mult": []}, "of one level or more"),
        (
            {"model_channels": 48, "channel_mult": [3]},
            "a layer of 144 channels does not divide into 32 equal",
        ),
        ({"model_channels": 2}, "is 2, the number of sines and cosines"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"resample_filter": [1, 2, 1]}, "must have an even number of taps"),
    ],
)
def test_what_it_cannot_be_is_refused_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=f"SongUNet: .*{message}"):
        SongUNet(8, 3, 3, **{**TINY, **arguments})
