"""Training settings: everything but the network, the coupling and the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
            object.__setattr__(self, name, tuple(getattr(self, name)))
        counts = ("steps", "batch", "accumulate", "log_every", "validate_every", "checkpoint_every", "keep")
        for name in counts:
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("warmup", "workers", "seed", "weight_decay"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _check(0 < self.lr < math.inf, "lr", self.lr, "a positive number")
        _check(0 <= self.page_every < math.inf, "page_every", self.page_every, "seconds, or 0 for no page")
        _check(self.clip is None or self.clip > 0, "clip", self.clip, "positive, or absent for no clipping")
        _check(bool(self.ema) and min(self.ema) > 0, "ema", self.ema, "one or more positive half-lives")
        _check(len(set(self.ema)) == len(self.ema), "ema", self.ema, "different half-lives")
        _check(
            all(0 <= b < 1 for b in self.betas) and len(self.betas) == 2,
            "betas",
            self.betas,
            "two numbers in [0, 1)",
        )
        _check(self.optimizer in ("adam", "adamw"), "optimizer", self.optimizer, "'adam' or 'adamw'")
        _check(self.decay in ("constant", "cosine"), "decay", self.decay, "'constant' or 'cosine'")
        _check(
            self.precision in (None, "no", "bf16", "fp16"),
            "precision",
            self.precision,
            "'no', 'bf16' or 'fp16'",
        )
        _check(
            self.optimizer == "adamw" or self.weight_decay == 0,
            "weight_decay",
            self.weight_decay,
            "0 with optimizer 'adam'; choose 'adamw' for it",
        )
        _check(
            self.batch % self.accumulate == 0,
            "batch",
            self.batch,
            f"a multiple of accumulate, {self.accumulate}",
        )
        known = {"tensorboard", "wandb"}
        _check(set(self.trackers) <= known, "trackers", self.trackers, f"some of {sorted(known)}")

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rate = self.lr * min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rate


def _check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}: must be {allowed}, not {value!r}.")
