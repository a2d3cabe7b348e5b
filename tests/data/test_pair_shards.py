"""Pairs streamed from a folder: the rows of every file, in any order, and damage told by name."""

from __future__ import annotations

import pickle

import pytest
import torch

import fewstep as fs
from fewstep.data import PairShards
from fewstep.flows._batches import Batches, loader

SIZES = (7, 5, 9)


def pairs(count, shape=(2, 3), seed=0):
    x0, x1 = torch.randn(2, count, *shape, generator=torch.Generator().manual_seed(seed))
    return fs.Pairs(x0, x1)


def write(folder, sizes=SIZES, first=100, **options):
    """Files of so many pairs, and all of them together as ``Pairs.load`` reads them."""
    paths = []
    for k, size in enumerate(sizes):
        paths.append(folder / f"pairs-{first:08d}-{first + size - 1:08d}.safetensors")
        pairs(size, seed=k, **options).save(paths[-1])
        first += size
    loaded = [fs.Pairs.load(path) for path in paths]
    return paths, torch.cat([p.x0 for p in loaded]), torch.cat([p.x1 for p in loaded])


@pytest.mark.parametrize(
    "rows",
    [range(21), [20, 0, 6, 7, 7, 11, 12, 3], torch.tensor([8]), range(5, 14), []],
    ids=["all", "mixed", "one", "middle", "none"],
)
def test_rows_are_those_of_the_files(tmp_path, rows):
    _, x0, x1 = write(tmp_path)
    shards = PairShards(tmp_path)
    found = shards[rows]
    rows = torch.as_tensor(rows, dtype=torch.long)
    assert torch.equal(found[0], x0[rows])
    assert torch.equal(found[1], x1[rows])
    assert (len(shards), shards.shape) == (21, (2, 3))


def test_what_was_generated_is_read(tmp_path):
    field = fs.models.bundled("mixture")
    fs.generate(field, fs.classical.euler(2), range(10), tmp_path, formats=["pairs"], shard=4, seed=3)
    x0, x1 = PairShards(tmp_path)[range(10)]
    assert torch.equal(x0, fs.noise(10, (24,), seed=3))
    torch.testing.assert_close(x1, fs.classical.euler(2).sample(field, x0))


def test_the_last_pairs_can_be_held_out(tmp_path):
    _, x0, _ = write(tmp_path)
    train, test = PairShards(tmp_path).split(11)
    assert torch.equal(train[range(10)][0], x0[:10])
    assert torch.equal(test[range(11)][0], x0[10:])
    again = test.split(1)[1]
    assert torch.equal(again[[0]][0], x0[20:])
    with pytest.raises(IndexError, match="has pairs 0 to 9, not 10"):
        train[[10]]
    for last in (0, 21):
        with pytest.raises(ValueError, match=f"of 21 pairs, between 1 and 20 can be held out, not {last}"):
            PairShards(tmp_path).split(last)


def test_processes_that_load_get_the_same_pairs(tmp_path):
    _, x0, _ = write(tmp_path)
    shards = PairShards(tmp_path)
    shards[[0]]
    assert len(pickle.dumps(shards)) < 5000  # without the rows
    assert torch.equal(pickle.loads(pickle.dumps(shards))[[13]][0], x0[[13]])
    batches = [loader(shards, Batches(21, 8, seed=0), workers, pin=False) for workers in (0, 1)]
    for _ in range(3):
        for one, two in zip(*(next(b) for b in batches), strict=True):
            assert torch.equal(one, two)


def test_the_rows_are_mapped_and_not_read(tmp_path):
    """What is open is no copy: a file that changes in place changes the rows."""
    paths, x0, _ = write(tmp_path)
    shards = PairShards(tmp_path)
    shards[[0]]
    content = bytearray(paths[0].read_bytes())
    at = content.index(x0[3].numpy().tobytes())
    with paths[0].open("r+b") as file:
        file.seek(at)
        file.write(torch.full((2, 3), 5.0).numpy().tobytes())
    assert torch.equal(shards[[3]][0], torch.full((1, 2, 3), 5.0))


def test_the_fingerprint_is_that_of_the_pairs(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a")
    write(tmp_path / "b")
    write(tmp_path / "c", sizes=(7, 6, 8))
    a, b, c = (PairShards(tmp_path / name) for name in ("a", "b", "c"))
    assert a.fingerprint() == b.fingerprint()
    parts = a.split(5)
    assert len({a.fingerprint(), c.fingerprint(), *(p.fingerprint() for p in parts)}) == 4


def test_double_precision_is_read_as_single(tmp_path):
    p = pairs(3)
    fs.Pairs(p.x0.double(), p.x1.double()).save(tmp_path / "pairs-0-2.safetensors")
    assert torch.equal(PairShards(tmp_path)[range(3)][1], p.x1)


def spoil(paths, how):
    if how == "hole":
        paths[1].unlink()
    elif how == "overlap":
        pairs(9).save(paths[1].with_name("pairs-00000105-00000113.safetensors"))
    elif how == "truncated":
        paths[1].write_bytes(paths[1].read_bytes()[:-20])
    elif how == "count":
        pairs(4).save(paths[1])
    elif how == "shape":
        pairs(5, shape=(3, 2)).save(paths[1])
    elif how == "unfinished":
        (paths[0].parent / "generate.json").write_text("{}")
    elif how == "conditions":
        p = pairs(5)
        fs.Pairs(p.x0, p.x1, conditions={"mode": "fast"}, per_sample={"label": torch.arange(5)}).save(
            paths[1]
        )
    elif how == "empty":
        for path in paths:
            path.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "hole",
            "pairs 107 to 111 are missing between pairs-00000100-00000106.safetensors and pairs-00000112",
        ),
        ("overlap", "pairs 105 to 106 appear twice between pairs-00000100-00000106"),
        ("truncated", r"pairs-00000107-00000111.safetensors: not a readable file of pairs"),
        ("count", r"pairs-00000107-00000111.safetensors: must hold 5 noises and samples of one shape, but"),
        (
            "shape",
            r"pairs-00000107-00000111.safetensors: holds samples of shape \(3, 2\), but pairs-00000100",
        ),
        ("unfinished", "its pairs are not complete; repeat the command that makes them"),
        ("conditions", r"pairs-00000107-.*: its pairs have the conditions label, mode"),
        ("empty", r"holds no files pairs-\*.safetensors"),
    ],
)
def test_damage_is_named(tmp_path, how, message):
    spoil(write(tmp_path)[0], how)
    with pytest.raises(ValueError, match=message):
        PairShards(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none: there is no such folder of pairs; `fewstep sample"):
        PairShards(tmp_path / "none")


def test_numbers_that_are_not_finite_are_found(tmp_path):
    paths, *_ = write(tmp_path)
    shards = PairShards(tmp_path)
    shards.check()
    p = pairs(9)
    p.x1[4, 0, 1] = torch.nan
    p.save(paths[2])
    with pytest.raises(ValueError, match=r"pairs-00000112-00000120.safetensors: pair 116 holds NaN"):
        PairShards(tmp_path).check()
    PairShards(tmp_path).split(5)[0].check()
