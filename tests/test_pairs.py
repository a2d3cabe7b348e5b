"""Noise that can be numbered, and files of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewstep as fs


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


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("start", -1), ("seed", -1), ("seed", 2**64)])
def test_bad_requests_for_noise_are_named(name, value):
    with pytest.raises(ValueError, match=f"noise: {name} must be a whole number of at least .*, not {value}"):
        fs.noise(**{"count": 1, "shape": (2,), name: value})


def make_pairs():
    x0 = fs.noise(6, (2,))
    label = torch.arange(6)
    shared, own = {"scale": torch.tensor(2.0)}, {"label": label}
    return fs.Pairs(x0, 2 * x0, 20, 120, 1e-6, shared, own, {"rtol": 1e-5, "by": ["a"]})


def same(a, b):
    assert torch.equal(a.x0, b.x0)
    assert torch.equal(a.x1, b.x1)
    assert (a.nfe, a.calls, a.error, a.provenance) == (b.nfe, b.calls, b.error, b.provenance)
    for one, other in ((a.conditions, b.conditions), (a.per_sample, b.per_sample)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_pairs_come_back_from_their_file(tmp_path):
    pairs = make_pairs()
    pairs.save(tmp_path / "pairs.safetensors")
    same(fs.Pairs.load(tmp_path / "pairs.safetensors"), pairs)


def test_slices_take_their_conditions_with_them():
    pairs = make_pairs()
    part = pairs[2:5]
    assert len(part) == 3
    assert torch.equal(part.x1, pairs.x1[2:5])
    assert part.per_sample["label"].tolist() == [2, 3, 4]
    assert part.conditions["scale"] == 2
    assert pairs[torch.tensor([5, 0])].per_sample["label"].tolist() == [5, 0]
    assert (part.nfe, part.error) == (pairs.nfe, pairs.error)


def test_a_split_is_the_whole():
    first, last = make_pairs().split(2)
    assert (len(first), len(last)) == (4, 2)
    assert torch.equal(torch.cat([first.x0, last.x0]), make_pairs().x0)
    assert last.per_sample["label"].tolist() == [4, 5]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"x0 and x1 must have one shape, not \(2, 2\) and \(2, 3\)"):
        fs.Pairs(torch.zeros(2, 2), torch.zeros(2, 3))


def test_conditions_of_every_kind_come_back_from_their_file(tmp_path):
    x0 = fs.noise(3, (2,))
    shared = {"mode": "fast", "null": None, "sizes": (64, [1.5, True]), "flat.text": torch.zeros(2)}
    own = {
        "prompt": ["a", "b", "c"],
        "label": np.arange(3),
        "flat": {"text": torch.arange(6.0).reshape(3, 2), "names": np.array(["x", "y", "z"])},
    }
    fs.Pairs(x0, x0 * 2, conditions=shared, per_sample=own).save(tmp_path / "pairs.safetensors")
    loaded = fs.Pairs.load(tmp_path / "pairs.safetensors")
    assert {k: v for k, v in loaded.conditions.items() if k != "flat.text"} == {
        "mode": "fast",
        "null": None,
        "sizes": (64, [1.5, True]),
    }
    assert torch.equal(loaded.conditions["flat.text"], torch.zeros(2))
    assert loaded.per_sample["prompt"] == ["a", "b", "c"]
    assert loaded.per_sample["label"].tolist() == [0, 1, 2]
    assert torch.equal(loaded.per_sample["flat"]["text"], torch.arange(6.0).reshape(3, 2))
    assert loaded.per_sample["flat"]["names"] == ["x", "y", "z"]


def test_names_with_dots_are_not_taken_for_nested_ones(tmp_path):
    x0 = fs.noise(2, (2,))
    both = {"a.b": torch.zeros(2), "a": {"b": torch.ones(2)}}
    fs.Pairs(x0, x0 * 2, conditions=both).save(tmp_path / "pairs.safetensors")
    loaded = fs.Pairs.load(tmp_path / "pairs.safetensors").conditions
    assert (loaded["a.b"].tolist(), loaded["a"]["b"].tolist()) == ([0, 0], [1, 1])


def test_conditions_that_no_file_can_keep_are_refused(tmp_path):
    pairs = fs.Pairs(torch.zeros(1, 2), torch.ones(1, 2), conditions={"hook": {"f": len}})
    with pytest.raises(ValueError, match=r"conditions\.hook\.f holds a builtin_function_or_method"):
        pairs.save(tmp_path / "pairs.safetensors")
    assert not list(tmp_path.iterdir())


def test_half_precision_is_kept_in_float32():
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    pairs = fs.Pairs(x, x)
    assert (pairs.x0.dtype, pairs.x1.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 100])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "pairs.safetensors"
    make_pairs().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"pairs\.safetensors: not a readable file of pairs"):
        fs.Pairs.load(path)


def test_another_safetensors_file_is_no_pairs(tmp_path):
    from safetensors.torch import save_file

    save_file({"x0": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="not a readable file of pairs"):
        fs.Pairs.load(tmp_path / "weights.safetensors")
    with pytest.raises(FileNotFoundError):
        fs.Pairs.load(tmp_path / "none.safetensors")


def test_numbers_of_the_noises_are_kept_and_are_no_condition(tmp_path):
    x0 = fs.noise(4, (2,), start=7)
    fs.Pairs(x0, 2 * x0, seeds=torch.arange(7, 11)).save(tmp_path / "pairs.safetensors")
    loaded = fs.Pairs.load(tmp_path / "pairs.safetensors")
    assert loaded.seeds.tolist() == [7, 8, 9, 10]
    assert loaded[1:3].seeds.tolist() == [8, 9]
    assert loaded.conditions == loaded.per_sample == {}
    assert loaded.error != loaded.error  # not estimated: null in the file, as JSON has no NaN
    assert b"NaN" not in (tmp_path / "pairs.safetensors").read_bytes()


PROMPT = "a portrait, (best quality:1.2), style: oil, ratio: 3:2, lens: 50mm, iso: 100, no: text"


@pytest.mark.parametrize(
    "prompt",
    [PROMPT, "[[a]] {cat} [[b]] dog", '"\\"[', "\u00fc" * 500],
    ids=["colons", "brackets", "quotes", "long"],
)
def test_many_prompts_come_back(tmp_path, prompt):
    count = 60_000
    x = torch.zeros(count, 1)
    fs.Pairs(x, x, per_sample={"prompt": [prompt] * count}).save(tmp_path / "p.safetensors")
    assert fs.Pairs.load(tmp_path / "p.safetensors").per_sample == {"prompt": [prompt] * count}


@pytest.mark.parametrize(
    ("condition", "message"),
    [(2**80, "whole number"), ("\ud800", "surrogates"), ("x" * 100_000_000, "may take 100,000,000")],
    ids=["number", "text", "long"],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, condition, message):
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=rf"p\.safetensors: .*could not be read again .*{message}"):
        fs.Pairs(x, x, conditions={"a": condition}).save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


def test_conditions_named_as_compiled_networks_name_theirs_keep_their_names(tmp_path):
    x = torch.zeros(2, 1)
    given = {"_orig_mod.b": torch.tensor(1.0), "b": torch.tensor(2.0)}
    fs.Pairs(x, x, conditions=given).save(tmp_path / "p.safetensors")
    assert fs.Pairs.load(tmp_path / "p.safetensors").conditions == given
