"""The training of corrections: one loop for the last state alone and for all states."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .._files import write_safetensors
from .._progress import progress_bar
from .._reading import read_tensors, reading
from ..fitting.losses import LeastSquares
from ..networks import Corrector
from ..pairs import Pairs
from ._settings import Training

__all__ = ["Trained", "train"]

#: Steps over which the learning rate rises.
_WARMUP = 50
_FACTS = "fewstep.lifting"

#: ``rollout(corrector, index)`` returns the samples of some pairs.
Rollout = Callable[[Corrector, Tensor], Tensor]


class Trained(NamedTuple):
    """The weights that were best on validation, and the way there.

    Args:
        corrector: the corrections; those of step 0, which are zero, if none were better.
        step: the step that they are of.
        steps: all steps made.
        curve: validation losses, every ``validate_every`` steps from 0 on, and at the end.
        stopped: why the training ended.
    """

    corrector: Corrector
    step: int
    steps: int
    curve: list[float]
    stopped: str


class _Run:
    """What a training has reached; it is written to a file, and read from there."""

    def __init__(self, corrector: Corrector, settings: Training) -> None:
        self.corrector, self.average = corrector, copy.deepcopy(corrector)
        self.best = copy.deepcopy(corrector.state_dict())
        self.optimizer = torch.optim.AdamW(corrector.parameters(), weight_decay=settings.weight_decay)
        self.step, self.best_step, self.curve = 0, 0, list[float]()

    def save(self, path: Path, identity: str) -> None:
        tensors: dict[str, Tensor] = {}
        for name, held in (("now", self.corrector), ("average", self.average)):
            tensors |= {f"{name}.{key}": x for key, x in held.state_dict().items()}
        tensors |= {f"best.{key}": x for key, x in self.best.items()}
        for k, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{key}": x for key, x in moments.items()}
        facts = {"of": identity, "step": self.step, "best_step": self.best_step, "curve": self.curve}
        write_safetensors(path, tensors, {_FACTS: json.dumps(facts)})

    def load(self, path: Path, identity: str) -> None:
        with reading(path, "state of a training", "fewstep.lift, if it is removed"):
            tensors, facts = read_tensors(path, _FACTS)
            if facts["of"] != identity:
                raise ValueError("it is of another solver, other pairs or settings; name another folder")
            parts: dict[str, dict[str, Tensor]] = {"now": {}, "average": {}, "best": {}, "optimizer": {}}
            for name, x in tensors.items():
                part, _, key = name.partition(".")
                parts[part][key] = x
            self.corrector.load_state_dict(parts["now"])
            self.average.load_state_dict(parts["average"])
            self.best = {key: x.to(self.best[key].device) for key, x in parts["best"].items()}
            moments: dict[int, dict[str, Tensor]] = {}
            for name, x in parts["optimizer"].items():
                k, _, key = name.partition(".")
                moments.setdefault(int(k), {})[key] = x
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
            self.step, self.best_step, self.curve = facts["step"], facts["best_step"], facts["curve"]


def train(
    corrector: Corrector,
    rollout: Rollout,
    pairs: Pairs,
    validate: Callable[[Corrector], float],
    loss: LeastSquares,
    settings: Training,
    *,
    seed: int,
    state: Path | None,
    identity: str,
    progress: bool,
) -> Trained:
    """Train corrections; return those with the least validation loss.

    Args:
        corrector: the corrections, zero at first.
        rollout: makes the samples of pairs.
        pairs: the training pairs.
        validate: returns the loss of corrections on the validation pairs.
        loss: the loss.
        settings: its settings.
        seed: seed of the batches.
        state: file of the state, from which an interrupted training goes on.
        identity: what the training depends on.
        progress: show a progress bar.

    Raises:
        FloatingPointError: when the loss is not finite.
    """
    run = _Run(corrector, settings)
    if state is not None and state.exists():
        run.load(state, identity)
    total, stopped = settings.steps(len(pairs)), "all steps are made"
    bar = progress_bar(progress, total=total, initial=run.step, desc="lifting", unit="step")
    with bar:
        while True:
            validated, left = divmod(run.step, settings.validate_every)
            at_end = run.step == total
            if (left == 0 or at_end) and len(run.curve) == validated + (left > 0):
                run.curve.append(validate(run.average))
                if run.curve[-1] <= min(run.curve):
                    run.best, run.best_step = copy.deepcopy(run.average.state_dict()), run.step
                if state is not None:
                    run.save(state, identity)
                bar.set_postfix(validation=f"{run.curve[-1] / run.curve[0]:.3f}")
                if run.step - run.best_step >= settings.patience * settings.validate_every:
                    stopped = "validation no longer improved"
                    break
            if at_end:
                break
            _make_step(run, rollout, pairs, loss, settings, seed)
            bar.update()
    run.average.load_state_dict(run.best)
    run.average.eval().requires_grad_(False)
    return Trained(run.average, run.best_step, run.step, run.curve, stopped)


def _make_step(
    run: _Run, rollout: Rollout, pairs: Pairs, loss: LeastSquares, settings: Training, seed: int
) -> None:
    k = run.step
    rise, fall = min(1.0, (k + 1) / _WARMUP), (1 + math.cos(math.pi * k / settings.steps(len(pairs)))) / 2
    for group in run.optimizer.param_groups:
        group["lr"] = settings.lr * rise * fall
    index = _batch(k, len(pairs), settings.batch, seed)
    part = pairs[index]
    with torch.enable_grad():
        error = loss(loss.squared(rollout(run.corrector, index), torch.ones(1), part))
    if k % settings.validate_every == 0 and not bool(error.isfinite()):
        raise FloatingPointError(
            f"lift: the loss is not finite at step {k}; lower lr in lifting.Training(lr={settings.lr:g})."
        )
    weights = list(run.corrector.parameters())
    # The gradients of the network's own weights are neither needed nor touched.
    for weight, gradient in zip(weights, torch.autograd.grad(error, weights, allow_unused=True), strict=True):
        weight.grad = gradient
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for mean, weight in zip(run.average.parameters(), weights, strict=True):
            mean.lerp_(weight, 1 - settings.average)
    run.step += 1


def _batch(step: int, count: int, size: int, seed: int) -> Tensor:
    """The pairs of a step: parts of a new order of all in each round."""
    size = min(size, count)
    rounds, part = divmod(step, count // size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + rounds))
    return order[part * size : (part + 1) * size]
