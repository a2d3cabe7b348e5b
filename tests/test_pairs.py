"""Noise that can be numbered, and files of pairs."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.pairs import take


def test_a_noise_has_its_number_whatever_the_batch():
    whole = fs.noise(12, (3, 2), seed=5)
    for start, count in ((0, 12), (0, 1), (3, 4), (11, 1)):
        assert torch.equal(fs.noise(count, (3, 2), seed=5, start=start), whole[start : start + count])


def test_seeds_and_numbers_are_different_noises():
    drawn = torch.cat([fs.noise(4, (8,), seed=seed) for seed in (0, 1, 2)])
    assert len(drawn.unique(dim=0)) == 12
    assert not torch.equal(fs.noise(1, (8,), seed=1, start=0), fs.noise(1, (8,), seed=0, start=1))


def test_noise_is_standard_normal():
    """Mean, variance, fourth moment and the correlation of neighbours, to five standard errors."""
    z = fs.noise(500, (400,), dtype=torch.float64)
    n = z.numel()
    assert abs(z.mean()) < 5 / n**0.5
    assert abs(z.square().mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs(z.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
    assert abs((z[1:] * z[:-1]).mean()) < 5 / n**0.5
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 5 / n**0.5


def test_noise_is_rounded_from_float64():
    exact = fs.noise(3, (2,), dtype=torch.float64)
    assert torch.equal(fs.noise(3, (2,)), exact.float())
    assert fs.noise(3, (2,)).dtype == torch.float32


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 1, "start": -1}, {"count": 1, "seed": -1}])
def test_bad_requests_for_noise_are_named(options):
    with pytest.raises(ValueError, match="needs count >= 1, start >= 0 and seed >= 0, not count="):
        fs.noise(shape=(2,), **options)


def make_pairs():
    x0 = fs.noise(6, (2,))
    label = torch.arange(6)
    return fs.Pairs(
        x0, 2 * x0, 20, 120, 1e-6, {"label": label, "scale": torch.tensor(2.0)}, {"rtol": 1e-5, "by": ["a"]}
    )


def same(a, b):
    assert torch.equal(a.x0, b.x0)
    assert torch.equal(a.x1, b.x1)
    assert (a.nfe, a.calls, a.error, a.provenance) == (b.nfe, b.calls, b.error, b.provenance)
    assert a.conditions.keys() == b.conditions.keys()
    assert all(torch.equal(a.conditions[key], b.conditions[key]) for key in a.conditions)


def test_pairs_come_back_from_their_file(tmp_path):
    pairs = make_pairs()
    pairs.save(tmp_path / "pairs.safetensors")
    same(fs.Pairs.load(tmp_path / "pairs.safetensors"), pairs)


def test_slices_take_their_conditions_with_them():
    pairs = make_pairs()
    part = pairs[2:5]
    assert len(part) == 3
    assert torch.equal(part.x1, pairs.x1[2:5])
    assert part.conditions["label"].tolist() == [2, 3, 4]
    assert part.conditions["scale"] == 2
    assert pairs[torch.tensor([5, 0])].conditions["label"].tolist() == [5, 0]
    assert (part.nfe, part.error) == (pairs.nfe, pairs.error)


def test_a_split_is_the_whole():
    first, last = make_pairs().split(2)
    assert (len(first), len(last)) == (4, 2)
    assert torch.equal(torch.cat([first.x0, last.x0]), make_pairs().x0)
    assert last.conditions["label"].tolist() == [4, 5]


def test_take_passes_on_what_is_not_one_a_sample():
    conditions = {"label": torch.arange(4), "null": None, "mode": "fast", "pair": torch.arange(2)}
    part = take(conditions, slice(1, 3), 4)
    assert part["label"].tolist() == [1, 2]
    assert (part["null"], part["mode"]) == (None, "fast")
    assert part["pair"] is conditions["pair"]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"x0 and x1 must have one shape, not \(2, 2\) and \(2, 3\)"):
        fs.Pairs(torch.zeros(2, 2), torch.zeros(2, 3))


def test_only_tensor_conditions_are_saved(tmp_path):
    pairs = fs.Pairs(torch.zeros(1, 2), torch.zeros(1, 2), conditions={"prompt": "a cat"})
    with pytest.raises(ValueError, match="only tensor conditions can be saved, not prompt"):
        pairs.save(tmp_path / "pairs.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 100])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "pairs.safetensors"
    make_pairs().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"pairs\.safetensors: not a complete file of pairs"):
        fs.Pairs.load(path)


def test_another_safetensors_file_is_no_pairs(tmp_path):
    from safetensors.torch import save_file

    save_file({"x0": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="not a complete file of pairs"):
        fs.Pairs.load(tmp_path / "weights.safetensors")
    with pytest.raises(FileNotFoundError):
        fs.Pairs.load(tmp_path / "none.safetensors")


def test_numbers_of_the_noises_are_kept_and_are_no_condition(tmp_path):
    x0 = fs.noise(4, (2,), start=7)
    fs.Pairs(x0, 2 * x0, seeds=torch.arange(7, 11)).save(tmp_path / "pairs.safetensors")
    loaded = fs.Pairs.load(tmp_path / "pairs.safetensors")
    assert loaded.seeds.tolist() == [7, 8, 9, 10]
    assert loaded[1:3].seeds.tolist() == [8, 9]
    assert loaded.conditions == {}
    assert loaded.error != loaded.error  # not estimated: null in the file, as JSON has no NaN
    assert b"NaN" not in (tmp_path / "pairs.safetensors").read_bytes()
