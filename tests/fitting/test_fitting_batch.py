"""The batch of a fit, found by trying."""

from __future__ import annotations

import time

import pytest
import torch

import fewstep as fs
from fewstep.fitting import find_batch


def field(call, shape=(3,)):
    return fs.Field(call, shape=shape, name="tried")


def test_batches_double_until_the_memory_ends():
    tried = []

    def model(x, t):
        tried.append(len(x))
        if len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        time.sleep(0.002)  # a call takes the same time for any batch
        return -x

    assert find_batch(field(model)) == 8  # half of 16, the largest that worked
    assert sorted(set(tried)) == [1, 2, 4, 8, 16, 32]


def test_batches_end_at_the_most_or_where_more_samples_take_no_less_time_each():
    def steady(x, t):
        time.sleep(0.002)
        return -x

    def proportional(x, t):
        time.sleep(0.002 * max(4, len(x)))
        return -x

    assert find_batch(field(steady), most=6) == 4
    assert find_batch(field(proportional)) == 4


def test_conditions_are_repeated_and_other_errors_stay():
    seen = []

    def model(x, t, text, scale):
        seen.append(text.tolist())
        if len(x) == 4:
            raise RuntimeError("a fault of the network")
        time.sleep(0.002)
        return -x

    with pytest.raises(RuntimeError, match="a fault of the network"):
        find_batch(field(model), conditions={"scale": 2}, per_sample={"text": torch.arange(3)})
    assert seen[0] == [0]
    assert seen[-1] == [0, 1, 2, 0]


def test_a_sample_too_large_is_one_sentence():
    def model(x, t):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(ValueError, match="one sample of tried needs more memory than cpu has; free memory"):
        find_batch(field(model))
