"""Reading checkpoints of Fast-ODE, made here in its form: bare state dicts beside a JSON configuration."""

from __future__ import annotations

import json

import pytest
import torch

import fewstep as fs
from fewstep.networks import (
    GaussianEncoder,
    SongUNet,
    load_fast_ode,
    load_fast_ode_encoder,
    load_network,
    save_network,
)

#: Every field of a configuration that Fast-ODE has published.
PUBLISHED = {
    "unet_type": "songunet",
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 0,
    "augment_dim": 0,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "channel_mult_emb": 4,
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.13,
    "label_dropout": 0,
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
    "num_params": 2.155201,
}
ENCODER = {**PUBLISHED, "out_channels": 6}


def make(config):
    """A network that does something: one with its branches opened."""
    torch.manual_seed(0)
    network = SongUNet(**config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def write(folder, weights, config):
    torch.save(weights, folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "model.pth", folder / "config.json"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_flow_comes_back_with_time_turned_around(tmp_path, prefix):
    """There z' = v(z, s) carries data at s = 0 to noise at s = 1; here t = 1 - s, so x' = -v(x, 1 - t)."""
    original = make(PUBLISHED)
    weights = {prefix + key: value for key, value in original.state_dict().items()}
    network = load_fast_ode(*write(tmp_path, weights, PUBLISHED))
    x, t = fs.noise(2, (3, 8, 8)), torch.tensor([0.25, 0.75])
    assert torch.equal(network(x, t), -original(x, torch.tensor([0.75, 0.25])))
    assert not network.training


def test_euler_is_the_euler_of_the_original(tmp_path):
    """x -= v(x, i / N) / N for i = N .. 1, as its sampler has it."""
    original = make(PUBLISHED)
    field = fs.Field(load_fast_ode(*write(tmp_path, original.state_dict(), PUBLISHED)), shape=(3, 8, 8))
    x0 = fs.noise(2, (3, 8, 8))
    x = x0
    for i in (4, 3, 2, 1):
        x = x - original(x, torch.full((2,), i / 4)) / 4
    torch.testing.assert_close(fs.classical.euler(4).sample(field, x0), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.encoder."])
def test_an_encoder_comes_back(tmp_path, prefix):
    """Its wrapper puts ``encoder.`` before the names, and asks the network at 1."""
    original = make(ENCODER)
    weights = {prefix + key: value for key, value in original.state_dict().items()}
    encoder = load_fast_ode_encoder(*write(tmp_path, weights, ENCODER))
    x = fs.noise(2, (3, 8, 8))
    assert isinstance(encoder, GaussianEncoder)
    assert torch.equal(torch.cat(encoder(x), dim=1), original(x, torch.ones(2)))


def test_the_configuration_may_lack_the_type_or_be_a_mapping(tmp_path):
    """The one that its training writes has no ``unet_type``."""
    config = {key: value for key, value in PUBLISHED.items() if key != "unet_type"}
    checkpoint, path = write(tmp_path, make(PUBLISHED).state_dict(), config)
    x = fs.noise(1, (3, 8, 8))
    outputs = [load_fast_ode(checkpoint, c)(x, torch.tensor(0.5)) for c in (path, config)]
    assert torch.equal(*outputs)


def test_a_loaded_network_can_be_kept_as_one_of_ours(tmp_path):
    x = fs.noise(1, (3, 8, 8))
    flow = load_fast_ode(*write(tmp_path, make(PUBLISHED).state_dict(), PUBLISHED))
    save_network(tmp_path / "flow.safetensors", flow)
    assert torch.equal(
        load_network(tmp_path / "flow.safetensors")(x, torch.tensor(0.3)), flow(x, torch.tensor(0.3))
    )
    encoder = load_fast_ode_encoder(*write(tmp_path, make(ENCODER).state_dict(), ENCODER))
    save_network(tmp_path / "encoder.safetensors", encoder)
    again = load_network(tmp_path / "encoder.safetensors")(x)
    assert all(torch.equal(a, b) for a, b in zip(again, encoder(x), strict=True))


def test_weights_of_another_network_are_told_apart(tmp_path):
    checkpoint, _ = write(tmp_path, make(PUBLISHED).state_dict(), PUBLISHED)
    with pytest.raises(
        ValueError,
        match=r"model\.pth: not the weights of the SongUNet .*missing 'enc\.8x8_block1\.norm0\.weight', .*"
        r" and \d+ more; .*of another shape ",
    ):
        load_fast_ode(checkpoint, {**PUBLISHED, "num_blocks": 2})
    with pytest.raises(ValueError, match=r"unexpected 'enc\.8x8_block0\.norm2\.weight'"):
        load_fast_ode(checkpoint, {**PUBLISHED, "attn_resolutions": []})
    with pytest.raises(ValueError, match=r"'map_layer0\.weight' \(\(64, 16\) for \(128, 16\)\)"):
        load_fast_ode(checkpoint, {**PUBLISHED, "channel_mult_emb": 8})


def test_flow_and_encoder_are_not_taken_for_each_other(tmp_path):
    encoder = {f"encoder.{key}": value for key, value in make(ENCODER).state_dict().items()}
    checkpoint, config = write(tmp_path, encoder, ENCODER)
    with pytest.raises(ValueError, match=r"out_channels=6 and in_channels=3, .*load_fast_ode_encoder"):
        load_fast_ode(checkpoint, config)
    with pytest.raises(ValueError, match="weights of an encoder, not of a flow"):
        load_fast_ode(checkpoint, PUBLISHED)
    with pytest.raises(
        ValueError, match="has 3 output channels for 3 input channels, but an encoder needs 6"
    ):
        load_fast_ode_encoder(checkpoint, PUBLISHED)


def test_a_training_state_is_told(tmp_path):
    state = {"optimizer_state_dict": {"state": {}}, "model_state_dict": {"a": torch.zeros(1)}, "iter": 7}
    torch.save(state, tmp_path / "training_state_7.pth")
    with pytest.raises(ValueError, match=r"training_state_7\.pth: a training state, .* flow_model_\*\.pth"):
        load_fast_ode(tmp_path / "training_state_7.pth", PUBLISHED)


def damaged(kind, folder):
    path = folder / "model.pth"
    torch.save(make(PUBLISHED).state_dict(), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "code":
        torch.save(make(PUBLISHED), path)
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "code"])
def test_a_damaged_checkpoint_and_one_that_holds_code_are_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"model\.pth: not a file of weights that can be read safely"):
        load_fast_ode(damaged(kind, tmp_path), PUBLISHED)


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"a": 1}])
def test_other_content_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds no state dict of tensors"):
        load_fast_ode(tmp_path / "model.pth", PUBLISHED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not complete JSON"),
        ("[]", "must hold one JSON object"),
        ('{"dir": "runs", "iterations": 5}', "lacks 'img_resolution', 'in_channels', 'out_channels'"),
        (json.dumps({"unet_type": "adm", "in_channels": 3}), "unet_type='adm', guided-diffusion's"),
        (json.dumps({**PUBLISHED, "num_blokcs": 2}), "there is no argument 'num_blokcs'"),
        (json.dumps({**PUBLISHED, "dropout": "0.1"}), "'<=' not supported"),
    ],
)
def test_a_configuration_that_is_none_is_told(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        load_fast_ode(tmp_path / "model.pth", tmp_path / "config.json")


def test_files_that_are_not_there_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.pth: there is no such checkpoint"):
        load_fast_ode(tmp_path / "model.pth", PUBLISHED)
    with pytest.raises(FileNotFoundError, match=r"config\.json: there is no such configuration"):
        load_fast_ode(tmp_path / "model.pth", tmp_path / "config.json")
