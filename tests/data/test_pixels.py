"""Levels and numbers, and flips."""

from __future__ import annotations

import re

import pytest
import torch

import fewstep as fs


def test_every_level_comes_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = fs.data.scale(levels)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(fs.data.to_uint8(x), levels)
    assert torch.equal(fs.data.to_uint8(levels), levels)


def test_numbers_are_rounded_and_clamped():
    x = torch.tensor([-3.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.1])
    assert fs.data.to_uint8(x).tolist() == [0, 0, 1, 255]


def test_floats_pass_through_scale():
    x = torch.randn(2, 3)
    assert fs.data.scale(x) is x


def test_flips_mirror_about_half_of_the_pictures_and_leave_the_others():
    x = torch.arange(400 * 6).reshape(400, 1, 2, 3)
    y = fs.data.random_flip(x, torch.Generator().manual_seed(0))
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, (y != x).flatten(1).any(1))
    assert 160 < mirrored.sum() < 240


def test_flips_are_those_of_the_generator_whatever_the_batch():
    x = torch.randn(10, 3, 4, 4)
    whole = fs.data.random_flip(x, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    parts = [fs.data.random_flip(part, generator) for part in x.split(3)]
    assert torch.equal(whole, torch.cat(parts))


def test_points_cannot_be_flipped():
    with pytest.raises(ValueError, match=r"not \(5, 2\); turn flips off"):
        fs.data.random_flip(torch.randn(5, 2), torch.Generator())


def pictures(low, high, channels=1):
    x = torch.rand(4, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return low + (high - low) * (x - x.min()) / (x.max() - x.min())


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (pictures(0, 1), "no value below 0; if they are in [0, 1], pass 2 * x - 1, or uint8."),
        (pictures(0, 1, 3).half(), "no value below 0; if they are in [0, 1], pass 2 * x - 1, or uint8."),
        (pictures(0.6, 1), "no value below 0; if they are in [0, 1], pass 2 * x - 1, or uint8."),
        (pictures(0, 255), "if they are in 0 to 255, pass x / 127.5 - 1, or uint8."),
        (pictures(30, 200), "if they are in 0 to 255, pass x / 127.5 - 1, or uint8."),
        (pictures(-1, 254), "values up to 254; if they are in 0 to 255, pass x / 127.5 - 1, or uint8."),
        (pictures(0, 255, 4), "if they are in 0 to 255, pass x / 127.5 - 1, or uint8."),
        (pictures(0, 255, 2)[:1], "if they are in 0 to 255, pass x / 127.5 - 1, or uint8."),
    ],
)
def test_levels_of_another_range_are_said(x, words):
    with pytest.warns(UserWarning, match=re.escape(words)):
        fs.metrics.features.quantize(x)


@pytest.mark.parametrize(
    "x",
    [
        pictures(-1, 1),
        pictures(-3, 30),
        pictures(0, 0.4),
        pictures(0, 1)[:1],
        pictures(0, 1.2),
        pictures(0, 10),
        pictures(-2, 4, 3).relu(),
        pictures(0, 1, 4),
        torch.rand(4, 2),
        torch.empty(0, 1, 2, 2),
        torch.full((2, 1, 2, 2), torch.nan),
    ],
)
def test_levels_that_may_be_meant_pass(x):
    fs.data.warn_of_levels(x, "data")
    fs.data.warn_of_levels((255 * pictures(0, 1)).to(torch.uint8), "data")
