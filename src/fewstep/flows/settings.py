"""Training settings: everything but the network, the coupling and the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .._ranges import COUNT, NATURAL, NOT_NEGATIVE, POSITIVE, UNIT, check_fields

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of a training; steps are optimiser steps, samples are data samples.

    Args:
        steps: number of optimiser steps.
        batch: samples per step, over all processes and accumulated parts.
        lr: peak learning rate.
        optimizer: ``"adam"``, or ``"adamw"`` with ``weight_decay``.
        betas: decay rates of Adam's moments.
        weight_decay: weight decay of AdamW.
        warmup: steps of linear warm-up of the learning rate.
        decay: ``"constant"`` after the warm-up, or ``"cosine"`` to zero at the last step.
        clip: largest norm of the gradient; ``None`` for no clipping.
        accumulate: number of gradient accumulation steps; each processes an equal part of the batch.
        ema: half-lives of the weight averages, in samples; the first average is the returned flow.
        precision: ``"no"`` (float32), ``"bf16"`` or ``"fp16"`` autocast; ``None`` for the configuration of
            `accelerate`.
        channels_last: memory format of images; faster on most GPUs.
        compile: compile the networks by ``torch.compile``, which takes about a minute at the first step;
            faster on GPUs. Dropout then draws other numbers.
        flip: mirror each training image with probability 1/2.
        seed: seed of all randomness: noise, times, data order, flips, dropout.
        workers: processes that load data; 0 loads in the training process.
        log_every: steps between lines of metrics.
        validate_every: steps between validations and previews; the last step always has them.
        checkpoint_every: steps between checkpoints; the last step always has one.
        keep: number of latest checkpoints to keep, besides the best one.
        page_every: least seconds between two writes of the run's page, ``index.html``; 0 for no page. Slow
            pages are written less often, so that they take at most a hundredth of the time.
        trackers: trackers to log to as well: ``"tensorboard"``, ``"wandb"``.

    Raises:
        ValueError: when a number is out of range.
    """

    steps: int = 100_000
    batch: int = 128
    lr: float = 2e-4
    optimizer: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 1000
    decay: Literal["constant", "cosine"] = "constant"
    clip: float | None = None
    accumulate: int = 1
    ema: tuple[int, ...] = (500_000,)
    precision: Literal["no", "bf16", "fp16"] | None = None
    channels_last: bool = False
    compile: bool = False
    flip: bool = False
    seed: int = 0
    workers: int = 0
    log_every: int = 100
    validate_every: int = 5000
    checkpoint_every: int = 1000
    keep: int = 2
    page_every: float = 10.0
    trackers: tuple[str, ...] = ()

    #: Settings that may differ between a run and its resumption.
    FREE = frozenset(
        {
            "steps",
            "precision",
            "channels_last",
            "compile",
            "workers",
            "log_every",
            "validate_every",
            "checkpoint_every",
            "keep",
            "page_every",
            "trackers",
        }
    )

    def __post_init__(self) -> None:
        # YAML and JSON have lists, not tuples.
        for name in ("betas", "ema", "trackers"):
            given = getattr(self, name)
            if not isinstance(given, (list, tuple)):
                raise ValueError(f"{name}: must be a list, not {given!r}.")
            object.__setattr__(self, name, tuple(given))

        def check(name: str, good: bool, allowed: str) -> None:
            if not good:
                raise ValueError(f"{name}: must be {allowed}, not {getattr(self, name)!r}.")

        counts = dict.fromkeys(("steps", "batch", "accumulate", "log_every", "keep"), COUNT)
        often = COUNT._replace(words="a whole number of at least 1 (the number of steps for the last only)")
        check_fields("", self, **counts, validate_every=often, checkpoint_every=often)
        seconds = NOT_NEGATIVE._replace(words="seconds, or 0 for no page")
        norm = POSITIVE._replace(words="a positive number, or None for no clipping")
        check_fields("", self, warmup=NATURAL, workers=NATURAL, seed=NATURAL, page_every=seconds)
        check_fields("", self, lr=POSITIVE, clip=norm, weight_decay=NOT_NEGATIVE)
        half_lives, rates = tuple(map(POSITIVE.number, self.ema)), tuple(map(UNIT.number, self.betas))
        check("ema", bool(half_lives) and None not in half_lives, "one or more positive half-lives")
        check("ema", len(set(half_lives)) == len(half_lives), "different half-lives")
        object.__setattr__(self, "ema", half_lives)
        check("betas", len(rates) == 2 and None not in rates and max(rates) < 1, "two numbers in [0, 1)")
        object.__setattr__(self, "betas", rates)
        check("optimizer", self.optimizer in ("adam", "adamw"), "'adam' or 'adamw'")
        check("decay", self.decay in ("constant", "cosine"), "'constant' or 'cosine'")
        check("precision", self.precision in (None, "no", "bf16", "fp16"), "'no', 'bf16' or 'fp16'")
        only_adamw = "0 with optimizer 'adam'; choose 'adamw' for it"
        check("weight_decay", self.optimizer == "adamw" or self.weight_decay == 0, only_adamw)
        check("batch", self.batch % self.accumulate == 0, f"a multiple of accumulate, {self.accumulate}")
        known = {"tensorboard", "wandb"}
        check("trackers", set(self.trackers) <= known, f"some of {sorted(known)}")

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rate = self.lr * min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rate
