"""Reflow on a flow between Gaussians on the line, whose curvature is known before and after."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import fewstep as fs
from fewstep.flows import Settings, Trainer, reflow

SETTINGS = Settings(steps=150, batch=64, lr=0.05, warmup=1, decay="cosine", ema=(1000,), checkpoint_every=20)


class Line(nn.Module):
    """``u = q(t) x`` with a free cosine series ``q``.

    It starts at ``q = (2t - 1) / (t^2 + (1 - t)^2)``, the flow between independent standard normals: curved,
    with ``2 - pi/2``, although it ends where it began, ``x1 = x0``.
    """

    def __init__(self):
        super().__init__()
        t = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
        q = (2 * t - 1) / (t**2 + (1 - t) ** 2)
        self.register_buffer("k", torch.arange(12.0))
        series = torch.cos(math.pi * self.k.double()[:, None] * t)
        self.weights = nn.Parameter((2 * series @ q / len(t)).float())

    def forward(self, x, t):
        return torch.cos(math.pi * t[:, None] * self.k) @ self.weights[:, None] * x


def field(shape=(1,)):
    return fs.Field(Line().eval().requires_grad_(False), shape=shape, name="line")


def run(out, settings=SETTINGS, **options):
    options = {"field": field(), "pairs": 256, "solver": fs.classical.midpoint(32), **options}
    return reflow(out=out, settings=settings, **options)


def test_one_round_straightens_the_flow_and_keeps_where_it_leads(tmp_path):
    done = run(tmp_path)
    before, after = done.straightness
    assert before["curvature"] == pytest.approx(2 - math.pi / 2, rel=0.2)  # 256 noises
    assert before["truncation_rmse_4"] > 0.05
    assert after["curvature"] < 1e-3
    assert after["truncation_rmse_4"] < 0.02
    x0 = fs.noise(50, (1,), seed=9)
    x1 = fs.classical.euler(1).sample(fs.Field(done.flow), x0)
    torch.testing.assert_close(x1, x0, rtol=0, atol=0.1)
    assert json.loads((tmp_path / "result.json").read_text())["straightness"] == done.straightness


def test_every_round_makes_fresh_pairs_with_the_last_flow(tmp_path):
    done = run(tmp_path, rounds=2, pairs=64)
    assert len(done.straightness) == 3
    one, two = (next((tmp_path / f"round-{k}" / "pairs").glob("pairs-*")) for k in (1, 2))
    one, two = fs.Pairs.load(one), fs.Pairs.load(two)
    assert torch.equal(torch.cat([one.x0, two.x0]), fs.noise(128, (1,)))
    flow = Line()
    flow.load_state_dict(load_file(tmp_path / "round-1" / "flow.safetensors"))
    torch.testing.assert_close(two.x1, fs.classical.midpoint(32).sample(fs.Field(flow.eval()), two.x0))


def test_an_interrupted_reflow_ends_in_the_same_flow(tmp_path, monkeypatch):
    settings = Settings(steps=30, batch=16, lr=0.05, warmup=1, ema=(100,), checkpoint_every=4)
    whole = run(tmp_path / "whole", settings, rounds=2, pairs=64)
    steps = stages = ends = 0
    advance, generate = Trainer._advance, fs.generate

    def advance_or_die(self, batches):
        nonlocal steps
        steps += 1
        if steps in (10, 50):  # in the first round, and in the second
            raise KeyboardInterrupt
        return advance(self, batches)

    def generate_and_die(*words, **options):
        nonlocal stages
        stages += 1
        made = generate(*words, **options)
        if stages == 3:  # after the pairs of the second round
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(Trainer, "_advance", advance_or_die)
    monkeypatch.setitem(reflow.__globals__, "generate", generate_and_die)
    while True:
        try:
            resumed = run(tmp_path / "cut", settings, rounds=2, pairs=64)
            break
        except KeyboardInterrupt:
            ends += 1
    assert (ends, stages) == (3, 7)
    assert torch.equal(resumed.flow.weights, whole.flow.weights)
    assert resumed.straightness == whole.straightness
    taken = steps
    assert torch.equal(run(tmp_path / "cut", settings, rounds=2, pairs=64).flow.weights, whole.flow.weights)
    assert steps == taken  # what is finished is not done again


def test_a_reflow_may_get_more_rounds_but_not_other_pairs(tmp_path):
    settings = Settings(steps=4, batch=16, warmup=1)
    run(tmp_path, settings, pairs=32)
    assert len(run(tmp_path, settings, pairs=32, rounds=2).straightness) == 3
    with pytest.raises(ValueError, match="holds a reflow with pairs = 32, not 64; choose another folder"):
        run(tmp_path, settings, pairs=64)
    with pytest.raises(ValueError, match="holds a reflow with solver = "):
        run(tmp_path, settings, pairs=32, solver=fs.classical.euler(3))
    assert len(list((tmp_path / "round-1" / "pairs").glob("pairs-*"))) == 1


def test_adaptive_pairs_are_more_exact(tmp_path):
    run(tmp_path, Settings(steps=2, batch=8, warmup=1), pairs=16, solver=fs.Adaptive(1e-5, 1e-5))
    made = fs.Pairs.load(next((tmp_path / "round-1" / "pairs").glob("pairs-*")))
    reference = fs.reference.pairs(field(), made.x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(made.x1, reference.x1, rtol=0, atol=1e-3)


def test_mistakes_are_told_before_any_work(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="field: does not say what shape it samples"):
        run(tmp_path / "out", field=field(shape=None))
    with pytest.raises(ValueError, match="pairs, rounds: must be at least 1, not 256 and 0"):
        run(tmp_path / "out", rounds=0)
    with pytest.raises(ValueError, match="is a function, which has no weights to train"):
        run(tmp_path / "out", field=fs.Field(lambda x, t: x, shape=(1,), name="plain"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="reflow: runs in one process"):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
