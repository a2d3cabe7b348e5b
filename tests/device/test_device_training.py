"""Training, distillation and reflow on the device."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

import fewstep as fs
from fewstep.data import ArrayDataset, PairShards
from fewstep.flows import (
    Distillation,
    FlowMatching,
    Independent,
    Learned,
    MinibatchOT,
    Mixed,
    Paired,
    Settings,
    Trainer,
    feature_mse,
    reflow,
    sample_error,
    warm_start,
)
from fewstep.networks import MLP, GaussianEncoder, UNet
from fewstep.schedules import VP

pytestmark = pytest.mark.device

SETTINGS = {"steps": 3, "batch": 8, "ema": (100,), "validate_every": 3, "log_every": 2, "clip": 1.0}


@pytest.fixture
def accelerated():
    """The extras of training, without what `accelerate` remembers of other tests."""
    for extra in ("jinja2", "PIL", "matplotlib", "pydantic", "tqdm"):
        pytest.importorskip(extra)
    state = pytest.importorskip("accelerate.state").AcceleratorState
    state._reset_state(reset_partial_state=True)
    yield
    state._reset_state(reset_partial_state=True)


@pytest.fixture
def train(device, tmp_path, accelerated):
    """``train(objective, data)``: the folder of a run of three steps on the device."""

    def run(objective, data, folder="run", where=device, **options):
        trainer = Trainer(
            objective,
            data,
            Settings(**SETTINGS | options),
            out=tmp_path / folder,
            validation=data,
            device=str(where),
            progress=False,
        )
        assert trainer.device.type == "cuda"
        trainer.run()
        return tmp_path / folder

    return run


@pytest.fixture
def points():
    return ArrayDataset(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), name="points")


def flow(dimensions=3):
    torch.manual_seed(0)
    return MLP((dimensions,), width=16, blocks=1)


def encoder():
    return GaussianEncoder(MLP((3,), width=8, blocks=1, out_channels=6))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("coupling", [Independent, MinibatchOT, Learned, Mixed])
def test_couplings(train, points, coupling):
    if coupling is MinibatchOT:
        pytest.importorskip("ot")
    folder = train(FlowMatching(flow(), coupling.build(encoder, 1.0)), points)
    losses = [line["loss"] for line in lines(folder) if "loss" in line]
    assert losses
    assert all(0 < loss < 100 for loss in losses)
    assert fs.models.load_field(folder / "flow.safetensors").device.type == "cpu"


def test_points_of_the_plane(train):
    """Their previews are scatter plots; VP's path and units are on the device."""
    points = ArrayDataset(torch.randn(16, 2, generator=torch.Generator().manual_seed(0)), name="plane")
    objective = FlowMatching(flow(2), schedule=VP(), units=(1.0, 2.0))
    assert list(train(objective, points, accumulate=2).glob("previews/*.png"))


def test_a_run_is_resumed(train, points):
    folder = train(FlowMatching(flow(), Learned(encoder())), points)
    train(FlowMatching(flow(), Learned(encoder())), points, steps=5)
    assert lines(folder)[-1]["step"] == 5


def test_the_device_may_have_its_number(train, points):
    train(FlowMatching(flow()), points, where="cuda:0")


def test_steps_do_not_wait(train, points, waits, monkeypatch):
    """Only reports, validations and checkpoints do; batches are pinned."""
    advance, during = Trainer._advance, []

    def watched(self, batches):
        before = len(waits)
        losses = advance(self, batches)
        during.append(waits[before:])
        return losses

    monkeypatch.setattr(Trainer, "_advance", watched)
    train(FlowMatching(flow(), Learned(encoder())), points)
    assert during == [[]] * 3


def test_pictures(train):
    pictures = ArrayDataset(torch.randint(0, 255, (16, 1, 8, 8), dtype=torch.uint8), name="pictures")
    torch.manual_seed(0)
    folder = train(FlowMatching(UNet(1, 8)), pictures, flip=True, channels_last=True)
    assert list(folder.glob("previews/*.png"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(real, train, points, precision):
    folder = train(FlowMatching(flow(), Learned(encoder())), points, precision=precision)
    assert all(0 < line["loss"] < 100 for line in lines(folder) if "loss" in line)


def test_distillation(train, both, tmp_path):
    _, teacher = both(network=flow())
    fs.generate(teacher, fs.classical.euler(4), range(16), tmp_path / "pairs", formats=["pairs"], batch=8)
    pairs = PairShards(tmp_path / "pairs")
    train(Distillation(warm_start(teacher)), pairs, "plain")
    features = torch.nn.Linear(3, 2)
    train(Distillation(warm_start(teacher), feature_mse(features)), pairs, "features")
    train(FlowMatching(warm_start(teacher), Paired()), pairs, "paired")
    assert sample_error(teacher, fs.classical.euler(4), pairs) < 1e-4


def test_reflow(accelerated, both, device, tmp_path):
    _, there = both(network=flow(), name="flow")
    again = partial(
        reflow, there, fs.classical.euler(4), pairs=16, out=tmp_path, settings=Settings(**SETTINGS), batch=8
    )
    done = again()
    assert next(done.flow.parameters()).device.type == device.type
    assert len(done.straightness) == 2
    assert again().straightness[1] == pytest.approx(done.straightness[1], rel=0.1)
