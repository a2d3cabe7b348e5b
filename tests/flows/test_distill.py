"""Distillation: students whose best weights are known, undisturbed by dropout, resumed exactly."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib import image
from torch import nn

import fewstep as fs
from fewstep.data import ArrayDataset, PairShards
from fewstep.flows import LOSSES, Distillation, Settings, Trainer, feature_mse, sample_error, warm_start
from fewstep.networks import MLP

A = torch.tensor([[0.5, 0.2], [-0.3, 1.5]])


class Linear(nn.Module):
    """``u = W x + c``, whose Euler step maps ``x0`` to ``(I + W) x0 + c``."""

    def __init__(self, W=None):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(2, 2) if W is None else W)
        self.c = nn.Parameter(torch.zeros(2))

    def forward(self, x, t):
        return x @ self.W.T + self.c


@pytest.fixture
def pairs(tmp_path):
    """Pairs of the map ``x1 = A x0 + 1`` in two files."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for k in (0, 128):
        x0 = fs.noise(128, (2,), start=k)
        fs.Pairs(x0, x0 @ A.T + 1).save(folder / f"pairs-{k}-{k + 127}.safetensors")
    return PairShards(folder)


def trainer(objective, data, out, **settings):
    options = {"steps": 150, "batch": 64, "lr": 0.1, "warmup": 1, "ema": (500,)}
    validation = settings.pop("validation", None)
    return Trainer(
        objective,
        data,
        Settings(**{**options, **settings}),
        out=out,
        validation=validation,
        device="cpu",
        progress=False,
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_linear_student_finds_the_map(tmp_path, pairs, loss):
    train, test = pairs.split(64)
    objective = Distillation(Linear(), LOSSES[loss])
    student = trainer(objective, train, tmp_path / "run", validation=test, decay="cosine").run()
    torch.testing.assert_close(student.W, A - torch.eye(2), rtol=0, atol=5e-3)
    torch.testing.assert_close(student.c, torch.ones(2), rtol=0, atol=5e-3)
    assert sample_error(fs.Field(student), fs.classical.euler(1), test) < 5e-3
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["validation_rmse"] < 5e-3


def test_a_student_of_two_calls_learns_through_both(tmp_path, pairs):
    """Two Euler steps: (I + W/2)^2 = A, and (2 + W/2) c / 2 = 1."""
    objective = Distillation(Linear(), solver=fs.classical.euler(2))
    student = trainer(objective, pairs, tmp_path / "run", decay="cosine").run()
    half = torch.eye(2) + student.W / 2
    torch.testing.assert_close(half @ half, A, rtol=0, atol=1e-2)
    torch.testing.assert_close((half + torch.eye(2)) @ student.c / 2, torch.ones(2), rtol=0, atol=1e-2)


def test_features_that_see_one_direction_teach_only_that(tmp_path, pairs):
    features = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        features.weight.copy_(torch.tensor([[1.0, 0.0]]))
    student = trainer(Distillation(Linear(), feature_mse(features)), pairs, tmp_path / "run").run()
    torch.testing.assert_close(student.W[0], (A - torch.eye(2))[0], rtol=0, atol=2e-2)
    assert torch.equal(student.W[1], torch.zeros(2))


class Dropping(Linear):
    def forward(self, x, t):
        return nn.functional.dropout(super().forward(x, t), 0.5, self.training)


def test_dropout_stays_off_while_training(tmp_path, pairs):
    weights = [
        trainer(Distillation(kind()), pairs, tmp_path / kind.__name__, steps=20).run().W
        for kind in (Linear, Dropping)
    ]
    assert torch.equal(*weights)
    assert not Distillation(Dropping()).train().flow.training


class Killing(ArrayDataset):
    """Data that end the run at the ``after``-th batch, as a signal would."""

    def __init__(self, pairs, after):
        super().__init__(torch.cat(pairs[range(len(pairs))], dim=1), name="pairs")
        self.shape, self.pairs, self.after = pairs.shape, pairs, after
        self.fingerprint = pairs.fingerprint

    def __getitem__(self, indices):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return self.pairs[indices]


def test_an_interrupted_run_ends_in_the_same_student(tmp_path, pairs):
    settings = {"steps": 40, "checkpoint_every": 7}
    whole = trainer(Distillation(Linear()), pairs, tmp_path / "whole", **settings).run()
    for after in (12, 16):
        with pytest.raises(KeyboardInterrupt):
            trainer(Distillation(Linear()), Killing(pairs, after), tmp_path / "cut", **settings).run()
    resumed = trainer(Distillation(Linear()), pairs, tmp_path / "cut", **settings)
    assert resumed.step == 21
    assert torch.equal(resumed.run().W, whole.W)
    message = r"objective start was '\w+' and is '\w+'\); train into another folder"
    with pytest.raises(ValueError, match=message):
        trainer(Distillation(Linear(A.clone())), pairs, tmp_path / "cut", **settings)
    with pytest.raises(ValueError, match="objective loss was 'mse' and is 'pseudo_huber'"):
        trainer(Distillation(Linear(), LOSSES["pseudo_huber"]), pairs, tmp_path / "cut", **settings)


def test_the_test_error_is_the_mean_of_the_rmse_of_each_sample(pairs):
    """The zero velocity leaves the noise, so the error is that of the noise itself."""
    x0, x1 = pairs[range(256)]
    expected = (x0 - x1).square().mean(1).sqrt().mean().item()
    objective = Distillation(Linear())
    parts = [(x1[:100], x0[:100]), (x1[100:], x0[100:])]
    with torch.no_grad():
        figures = objective.validate(parts, torch.Generator())
    assert figures["rmse"] == pytest.approx(expected)
    assert figures["loss"] == pytest.approx((x0 - x1).square().mean().item())
    assert sample_error(fs.Field(Linear().eval()), fs.classical.euler(1), pairs) == pytest.approx(expected)


def test_the_preview_shows_the_teachers_samples_above_the_students(tmp_path):
    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, x, t):
            return self.scale * x

    objective = Distillation(Still())
    x0, x1 = torch.full((20, 1, 4, 4), -1.0), torch.full((20, 1, 4, 4), 1.0)
    with torch.no_grad():
        assert objective.preview((1, 4, 4), torch.device("cpu"), tmp_path / "none") == {}
        objective.validate([(x1, x0)], torch.Generator())
        objective.preview((1, 4, 4), torch.device("cpu"), tmp_path / "step-1")
    sheet = image.imread(tmp_path / "step-1-samples.png")[:, :, 0]
    assert sheet.shape == (9, 12 * 5 - 1)
    assert (sheet[:4, :4] == 1).all()
    assert (sheet[5:, :4] == 0).all()
    assert not (tmp_path / "none-samples.png").exists()


def test_what_cannot_be_distilled_is_told(tmp_path, pairs):
    with pytest.raises(ValueError, match="student: all weights of this Linear are frozen; train a copy"):
        Distillation(Linear().requires_grad_(False))
    with pytest.raises(ValueError, match="loss: as a module, this MSELoss would be trained"):
        Distillation(Linear(), nn.MSELoss())
    with pytest.raises(ValueError, match="distillation takes pairs of noise and sample, but got samples"):
        trainer(Distillation(Linear()), ArrayDataset(torch.zeros(4, 2)), tmp_path / "run")


def test_pairs_are_not_mirrored(tmp_path):
    x = torch.zeros(8, 1, 4, 4)
    fs.Pairs(x, x + 1).save(tmp_path / "pairs-0-7.safetensors")
    network = MLP((1, 4, 4), width=8, blocks=1)
    with pytest.raises(ValueError, match="flip: would mirror the samples of pairs, not their noises"):
        trainer(Distillation(network), PairShards(tmp_path), tmp_path / "run", batch=4, flip=True)


def test_a_warm_start_is_a_copy_that_can_be_trained():
    field = fs.models.bundled("digits")
    network = warm_start(field)
    assert network is not field.model
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in field.model.parameters())
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    assert torch.equal(network(x, t), field.model(x, t))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": lambda x, t: x}, "is a function, which has no weights to train"),
        ({"model": nn.Identity()}, "has no weights to train"),
        ({"prediction": "noise"}, r"predicts noise under CondOT\(\), but training on from it needs velocity"),
        ({"schedule": fs.schedules.Cosine()}, r"predicts velocity under Cosine\(.*\), but training on"),
        (
            {"guidance": 2.0, "unconditional": {"c": None}},
            "has guidance 2, which its network alone does not apply",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else "says",
)
def test_a_field_that_cannot_be_trained_on_is_told(options, message):
    options = {"model": Linear().eval(), **options}
    if isinstance(options["model"], nn.Module):
        options["model"].eval()
    with pytest.raises(ValueError, match=message):
        warm_start(fs.Field(**options))
