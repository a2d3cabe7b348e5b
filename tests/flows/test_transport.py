"""Matching in pools: against exact transport, the line's quantiles, and in trainings."""

from __future__ import annotations

import json

import numpy as np
import ot
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import kstest

from fewstep.data import ArrayDataset, Dataset
from fewstep.flows import FlowMatching, Paired, PooledOT, Settings, TrainConfig, Trainer, TransportPairs
from fewstep.flows import transport as transport_
from fewstep.networks import MLP, UNet


def points(count, dimensions, seed=5):
    """Points of unequal norms: a quarter lies close to the mean, nearest to most noises."""
    x = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    x *= torch.linspace(0.5, 2, dimensions)
    x[: count // 4] *= 0.2
    return x


def cost(pairs, first=0):
    x0, x1 = pairs[range(first, len(pairs))]
    return (x0 - x1).square().sum(1).mean().item()


def test_one_pool_of_all_pairs_is_exact_transport():
    x = points(30, 3)
    pairs = TransportPairs(ArrayDataset(x), 4, pool=120, rounds=1)
    shares = np.full(120, 1 / 120), np.full(30, 1 / 30)
    distances = torch.cdist(pairs[range(120)][0].double(), x.double()).square().numpy()
    assert cost(pairs) == pytest.approx(ot.emd2(*shares, distances), rel=1e-5)


def test_rounds_of_small_pools_approach_exact_transport():
    data = ArrayDataset(points(64, 8))
    independent, one, many, exact = (
        cost(TransportPairs(data, 8, pool, rounds)) for pool, rounds in ((1, 1), (32, 1), (32, 30), (512, 1))
    )
    assert (independent - one) / (independent - exact) < 0.9
    assert 0.97 < (independent - many) / (independent - exact) <= 1


def test_on_the_line_pairs_keep_their_order():
    """Optimal transport in one dimension: noise and data have the same rank."""
    x = torch.linspace(-1, 3, 200).exp()[:, None]  # far from a Gaussian
    pairs = TransportPairs(ArrayDataset(x), 1, pool=200)
    x0, x1 = pairs[range(200)]
    assert torch.equal(x0[:, 0].argsort(), x1[:, 0].argsort())


@pytest.mark.parametrize("held", [2**26, 100])
def test_both_marginals_are_exact(held, monkeypatch):
    """Each datum is used equally often, and the noises are those of pairs that are not matched."""
    monkeypatch.setattr(transport_, "_HELD", held)
    x = points(30, 3)
    pairs = TransportPairs(ArrayDataset(x), 5, pool=16, seed=4)
    assert torch.equal(torch.bincount(pairs.matched), torch.full((30,), 5))
    unmatched = TransportPairs(ArrayDataset(x), 5, pool=1, seed=4)
    x0, x1 = pairs[[0, 149, 7]]
    assert torch.equal(x0, unmatched[[0, 149, 7]][0])
    assert torch.equal(x1, x[pairs.matched[[0, 149, 7]]])
    assert cost(pairs, 90) < 0.7 * cost(unmatched)


def test_noises_are_standard_normal_over_all_pairs_and_not_for_some_data():
    pairs = TransportPairs(ArrayDataset(points(500, 4)), 8)
    x0, x1 = pairs[range(len(pairs))]
    assert kstest(x0.flatten().numpy(), "norm").pvalue > 1e-3
    assert x0.square().mean().item() == pytest.approx(1, abs=4 * (2 / x0.numel()) ** 0.5)
    off = torch.corrcoef(x0.T) - torch.eye(4)
    assert off.abs().max() < 4 / len(x0) ** 0.5
    assert kstest(x0[x1[:, 3] > 0].flatten().numpy(), "norm").pvalue < 1e-6


def test_the_same_arguments_give_the_same_pairs():
    data = ArrayDataset(points(40, 3))
    first, again, other = (TransportPairs(data, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.matched, again.matched)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert not torch.equal(first.matched, other.matched)


def test_pictures_are_scaled_and_keep_their_shape():
    x = torch.full((3, 1, 2, 5), 255, dtype=torch.uint8)
    x0, x1 = TransportPairs(ArrayDataset(x), 3)[[0, 8]]
    assert x0.shape == x1.shape == (2, 1, 2, 5)
    assert (x1 == 1).all()


class Matched(Dataset):
    name, shape = "matched", (2,)

    def __len__(self):
        return 4

    def __getitem__(self, indices):
        return torch.zeros(len(indices), 2), torch.zeros(len(indices), 2)

    def fingerprint(self):
        return "0"


def test_pairs_and_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="pairs with their own noises"):
        PooledOT().prepare(Matched())
    with pytest.raises(ValueError, match="PooledOT: pool must be a whole number of at least 1"):
        PooledOT(pool=0)
    with pytest.raises(ValueError, match=r"PooledOT\(\).prepare"):
        PooledOT()(torch.zeros(4, 2))


def trained(out, steps, coupling):
    torch.manual_seed(0)
    settings = Settings(steps=steps, batch=8, lr=1e-2, warmup=1, checkpoint_every=2, ema=(50,))
    x = ArrayDataset(points(40, 3))
    flow = FlowMatching(MLP((3,), width=8, blocks=1), coupling)
    Trainer(flow, x, settings, out=out, validation=x, device="cpu", progress=False).run()
    return load_file(out / "flow.safetensors")


def test_a_training_resumes_with_the_same_pairs(tmp_path):
    whole = trained(tmp_path / "whole", 6, PooledOT())
    trained(tmp_path / "parts", 4, PooledOT())
    parts = trained(tmp_path / "parts", 6, PooledOT())
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    facts = json.loads((tmp_path / "whole" / "run.json").read_text())["run"]
    given = {"name": "PooledOT", "exact": True, "noises": 8, "pool": 512, "rounds": 4}
    assert facts["coupling"] == given
    with pytest.raises(ValueError, match="coupling"):
        trained(tmp_path / "whole", 6, PooledOT(pool=3))


def test_validation_is_on_pairs_of_the_held_out_data(tmp_path):
    x, held_out = ArrayDataset(points(40, 3)), ArrayDataset(points(20, 3, 6))
    flow = FlowMatching(MLP((3,), width=8, blocks=1), PooledOT(2))
    trainer = Trainer(flow, x, Settings(), out=tmp_path, validation=held_out, device="cpu", progress=False)
    assert (len(trainer.data), len(trainer.validation)) == (80, 40)
    noises, samples = trainer.validation[range(40)]
    assert set(map(tuple, samples.tolist())) == set(map(tuple, held_out[range(20)].tolist()))
    assert not torch.equal(noises, trainer.data[range(40)][0])


def test_noises_are_mirrored_with_their_pictures(tmp_path):
    x = torch.randint(256, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    flow = FlowMatching(UNet(1, width=8, multipliers=(1,), blocks=1), PooledOT(4))
    settings = Settings(steps=1, batch=8, flip=True)
    trainer = Trainer(flow, ArrayDataset(x), settings, out=tmp_path / "a", device="cpu", progress=False)
    given = trainer.data[range(64)]
    trainer._generator.manual_seed(0)
    x1, x0 = trainer._prepare(given, train=True)
    mirrored = (x1 != given[1]).flatten(1).any(1)
    assert 16 < mirrored.sum() < 48
    for before, after in zip(given, (x0, x1), strict=True):
        assert torch.equal(after[mirrored], before[mirrored].flip(-1))
        assert torch.equal(after[~mirrored], before[~mirrored])
    pairs = FlowMatching(flow.flow, Paired())
    with pytest.raises(ValueError, match="flip"):
        Trainer(pairs, trainer.data, settings, out=tmp_path / "b", device="cpu", progress=False)


def test_configurations_know_it_by_name():
    config = TrainConfig.parse({"data": "digits", "coupling": "pooled-ot"})
    assert isinstance(config.objective((1, 8, 8)).coupling, PooledOT)
