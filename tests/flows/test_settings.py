"""Settings: what is refused, and the learning rate over training."""

from __future__ import annotations

import math

import pytest

from fewstep.flows import Settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps: must be a whole number of at least 1, not 0"),
        ({"lr": -1.0}, "lr: must be a positive number"),
        ({"ema": ()}, "ema: must be one or more positive half-lives"),
        ({"ema": (5, 5)}, "ema: must be different half-lives"),
        ({"betas": (0.9, 1.0)}, "betas: must be two numbers"),
        ({"optimizer": "sgd"}, "optimizer: must be 'adam' or 'adamw', not 'sgd'"),
        ({"decay": "linear"}, "decay: must be 'constant' or 'cosine'"),
        ({"precision": "int8"}, "precision: must be 'no', 'bf16' or 'fp16'"),
        ({"weight_decay": 0.1}, "weight_decay: must be 0 with optimizer 'adam'; choose 'adamw' for it"),
        ({"batch": 10, "accumulate": 4}, "batch: must be a multiple of accumulate, 4, not 10"),
        ({"betas": ("0.9", 0.99)}, "betas: must be two numbers"),
        ({"steps": "1e1"}, "steps: must be a whole number of at least 1, not '1e1'"),
        ({"steps": 5.5}, "steps: must be a whole number of at least 1, not 5.5"),
        ({"clip": 0.0}, "clip: must be a positive number, or None for no clipping, not 0.0"),
        ({"clip": math.inf}, "clip: must be a positive number, or None for no clipping, not inf"),
        ({"validate_every": math.inf}, r"validate_every: .* \(the number of steps for the last only\)"),
        ({"checkpoint_every": None}, r"checkpoint_every: .* \(the number of steps for the last only\)"),
        ({"trackers": ("mlflow",)}, "trackers: must be some of"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_the_learning_rate_warms_up_and_decays():
    settings = Settings(steps=100, lr=1.0, warmup=10, decay="cosine")
    assert settings.learning_rate(0) == pytest.approx(0.1, rel=1e-3)
    assert settings.learning_rate(50) == pytest.approx(0.5)
    assert settings.learning_rate(99) < 1e-3
    constant = Settings(steps=100, lr=1.0, warmup=10)
    assert [constant.learning_rate(k) for k in (0, 9, 99)] == pytest.approx([0.1, 1, 1])


def test_lists_are_taken_for_tuples():
    assert Settings(ema=[10, 20], betas=[0.5, 0.9]) == Settings(ema=(10, 20), betas=(0.5, 0.9))
