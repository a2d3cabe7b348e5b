"""Configurations: what they build, what they refuse, and the ones that come with the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from fewstep.flows import KLWeight, Learned, MinibatchOT, Mixed, Settings, TrainConfig
from fewstep.networks import MLP, SongUNet, UNet, song_unet_preset

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
DEFAULTS = {"channel_mult_emb": 4, "channel_mult_noise": 1, "resample_filter": [1, 1]}
SHAPES = {
    "digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32),
    "ffhq": (3, 64, 64), "afhq": (3, 64, 64), "celebahq": (3, 256, 256),
}  # fmt: skip


def build(shape=(1, 8, 8), **entries):
    return TrainConfig.parse({"data": "digits", **entries}).objective(shape)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_of_the_repository_build_networks_for_their_data(path):
    config = TrainConfig.parse(yaml.safe_load(path.read_text()))
    shape = SHAPES[path.stem]
    with torch.device("meta"):
        objective = config.objective(shape)
    assert isinstance(objective.coupling, Learned)
    if path.stem == "digits":
        return
    preset = "celebahq256" if path.stem == "celebahq" else config.network
    preset = "mnist" if path.stem == "fashion-mnist" else preset
    assert objective.flow.config["time_scale"] == 1000
    for network, encoder in ((objective.flow, False), (objective.coupling.encoder.network, True)):
        arguments = song_unet_preset(preset, encoder=encoder)
        assert network.config["img_resolution"] == shape[-1]
        assert network.in_channels == shape[0]
        assert {key: network.config[key] for key in arguments} == arguments


def test_every_data_set_has_a_configuration():
    assert {path.stem for path in CONFIGS} == SHAPES.keys()


def test_networks_are_told_by_name_by_class_or_by_file(tmp_path):
    assert isinstance(build(network="unet").flow, UNet)
    assert build((2,), network="mlp").flow.config["shape"] == [2]
    flow = build((3, 16, 16), network={"class": "UNet", "width": 16}).flow
    assert flow(torch.zeros(2, 3, 16, 16), torch.zeros(2)).shape == (2, 3, 16, 16)
    path = tmp_path / "config_de.json"
    small = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "model_channels": 8}
    depth = {"channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    path.write_text(json.dumps({"unet_type": "songunet", **small, **depth}))
    flow = build(network=str(path)).flow
    assert isinstance(flow, SongUNet)
    assert flow.config["time_scale"] == 1  # as Fast-ODE has it
    assert flow(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape == (2, 1, 8, 8)


def test_a_published_network_may_be_changed():
    with torch.device("meta"):
        objective = build((3, 32, 32), network={"preset": "cifar10", "checkpoint": True, "dropout": 0.2})
        learned = build((1, 28, 28), network={"preset": "mnist", "dropout": 0.0}, coupling="learned")
    assert objective.flow.checkpoint
    assert objective.flow.config["dropout"] == 0.2
    assert objective.flow.config["model_channels"] == 128
    assert learned.coupling.encoder.network.config["dropout"] == 0.13


@pytest.mark.parametrize(("coupling", "kind"), [("learned", Learned), ("mixed", Mixed)])
@pytest.mark.parametrize("network", ["unet", "mlp", {"class": "UNet", "width": 32}])
def test_learned_couplings_bring_an_encoder_that_starts_at_the_prior(coupling, kind, network):
    objective = build(coupling=coupling, network=network, beta=3)
    assert type(objective.coupling) is kind
    mean, logvar = objective.coupling.encoder(torch.randn(2, 1, 8, 8))
    assert mean.shape == (2, 1, 8, 8)
    assert not mean.any()
    assert not logvar.any()
    weights = [sum(p.numel() for p in m.parameters()) for m in (objective.coupling, objective.flow)]
    assert weights[0] < weights[1]


def test_beta_may_be_a_ramp():
    ramp = build(coupling="learned", network="mlp", beta={"start": 20, "end": 5, "steps": 100})
    assert ramp.coupling.beta == KLWeight(5, 20, 100)
    assert type(build(coupling="minibatch-ot").coupling) is MinibatchOT


def test_settings_are_handed_on_and_a_configuration_survives_yaml():
    config = TrainConfig.parse({"data": "digits", "steps": 7, "ema": [10, 20], "betas": [0.5, 0.9]})
    assert config.settings() == Settings(steps=7, ema=(10, 20), betas=(0.5, 0.9))
    assert next(iter(config.to_dict())) == "data"
    assert TrainConfig.parse(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stepz": 1}, r"config: unknown 'stepz' \(did you mean 'steps'\?\); known are"),
        ({"steps": "many"}, r"config: steps: input should be a valid integer.*, not 'many'\."),
        ({"lr": -1}, r"config: lr: must be a positive number, not -1"),
        (
            {"coupling": "magic"},
            r"config: coupling: must be one of independent, learned, mixed, minibatch-ot.* not 'magic'",
        ),
        ({"beta": -1.0, "coupling": "learned"}, r"beta: end must be a positive number, not -1.0"),
        ({"data": None}, r"config: data: input should be a valid string, not None"),
    ],
)
def test_mistakes_are_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(**wrong)
    assert "\n" not in str(caught.value)


def test_missing_data_is_told():
    with pytest.raises(ValueError, match=r"config: data: missing required argument|field required"):
        TrainConfig.parse({})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet", "must be one of mnist, cifar10, .* not 'resnet'"),
        ({"width": 3}, r"network: must name its class, as in \{class: UNet"),
        ({"class": "UNet", "depth": 3}, "network: UNet cannot be built: .*'depth'"),
        ({"class": "ResNet"}, "'ResNet' is not a network of this version of fewstep"),
        ("absent.json", "network: absent.json: there is no such configuration"),
    ],
)
def test_networks_that_cannot_be_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        build(network=network)


def test_points_need_a_perceptron():
    with pytest.raises(ValueError, match=r"a UNet takes images, not samples of shape \(2,\); use 'mlp'"):
        build((2,), network="unet")


def test_an_encoder_that_cannot_be_guessed_is_asked_for(tmp_path):
    assert isinstance(build(network="mlp", coupling="learned", encoder="mlp").coupling.encoder.network, MLP)
    own = {"class": "SongUNet", "model_channels": 32, "channel_mult": [1], "num_blocks": 1}
    with pytest.raises(ValueError, match=r"encoder: must be given for this network"):
        build(network=own, coupling="learned")


def test_a_published_configuration_of_another_network_is_refused_by_name(tmp_path):
    path = tmp_path / "adm.json"
    path.write_text(json.dumps({"num_channels": 8, "unet_type": "adm"}))
    with pytest.raises(ValueError, match=r"network: .*adm.json: unet_type='adm', guided-"):
        TrainConfig(data="digits", network=str(path)).objective((3, 32, 32))


@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if "preset" in path.read_text()], ids=lambda p: p.stem
)
def test_files_of_settings_say_how_to_embed_time_as_published(path):
    shape, text = SHAPES[path.stem], path.read_text()
    published = song_unet_preset(yaml.safe_load(text)["network"])
    said = yaml.safe_load(re.search(r"--network '(.*?)'", text)[1])
    with torch.device("meta"):
        assert build(shape, network=said).flow.config == {**published, "time_scale": 1, **DEFAULTS}
        ours = build(shape, network=yaml.safe_load(text)["network"]).flow.config
    assert ours == {**published, "time_scale": 1000, **DEFAULTS}
