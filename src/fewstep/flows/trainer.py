"""The training loop."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import data as datasets
from .._files import only_writer
from .._progress import ProgressBar, progress_bar
from ..data import Dataset, is_picture
from . import _monitor
from ._averages import Averages, Meter
from ._batches import Batches, Loaded, loader, seed_default, stream
from ._environment import circumstances, identity, make_accelerator
from ._live import Live
from ._run_folder import RunFolder
from ._stop import Stop
from .objective import Objective
from .settings import Settings

__all__ = ["Trainer"]


class Trainer:
    """Minimises an objective over data: trains a flow, and its coupling if that is learned.

    All randomness in step ``k`` (data, noise, times, flips, dropout) comes from streams keyed by the seed,
    the process and ``k``. A run killed at any moment therefore continues from its last checkpoint with
    exactly the steps of an uninterrupted run.

    Args:
        objective: the networks and their losses, such as ``FlowMatching(flow, Learned(encoder))``;
            trained in place.
        data: training data; see :mod:`fewstep.data`.
        settings: training settings.
        out: folder of the run. If it holds checkpoints of the same run, training resumes.
        validation: held-out data; the best checkpoint is the one with the lowest loss on them.
        device: ``"cpu"``, or the kind of accelerator that `accelerate` finds; ``None`` accepts what it finds.
        progress: show a progress bar on the main process.

    The folder receives ``run.json`` (facts about the run), ``metrics.jsonl``, ``checkpoints/``,
    ``previews/``, ``index.html`` (a page that shows them, updated during the run) and, at the end, the
    averaged weights: ``flow.safetensors``, ``encoder.safetensors`` if a coupling was learned, and
    ``flow-HALF_LIFE.safetensors`` for each further average.

    Raises:
        ValueError: before training, when data, networks and settings do not match, or the folder holds
            another run, or another process trains there.
        OSError: when the disk has no room for the checkpoints.
    """

    def __init__(
        self,
        objective: Objective,
        data: Dataset,
        settings: Settings | None = None,
        *,
        out: str | os.PathLike[str],
        validation: Dataset | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        self.objective = objective
        self.settings = settings = settings or Settings()
        if validation is not None and validation.shape != data.shape:
            raise ValueError(
                f"validation: has samples of shape {validation.shape}, but the data {data.shape}; prepare "
                "both in the same way."
            )
        if settings.flip and not is_picture(data.shape):
            raise ValueError(f"flip: needs images, not samples of shape {data.shape}; leave it out.")

        self.accelerator = make_accelerator(settings, device, out)
        self.main: bool = self.accelerator.is_main_process
        self.device: torch.device = self.accelerator.device
        self.progress = progress and self.main
        # Pairs made here may be mirrored, noise and sample together; those of a flow may not.
        self.data = objective.prepare(data, seed=stream(settings.seed, 2), progress=self.progress)
        self.validation = validation and objective.prepare(
            validation, seed=stream(settings.seed, 3), progress=self.progress
        )
        self._mirrored = self.data is not data
        self._generator = torch.Generator(self.device)
        self._batches = Batches(
            len(self.data),
            settings.batch,
            seed=settings.seed,
            parts=settings.accumulate,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        objective.to(self.device)
        if settings.channels_last:
            objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._check()
        if settings.compile:
            for network in objective.exports().values():
                network.compile()  # in place: the names of its tensors, and copies, are those of the bare one

        # Averages and Adam's moments are of the bare networks, before accelerate wraps them.
        self.averages = Averages(objective, settings.ema, settings.batch)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
        decay = settings.weight_decay
        self._adam = kind(objective.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=decay)
        self.folder = RunFolder(out, identity(objective, self.data, settings), settings)
        if self.main:
            self.folder.lock()
        self.step = self.folder.resume(self._modules(), self._adam, self.accelerator.scaler)
        if self.main:
            self.folder.check_space(sum(p.numel() * p.element_size() for p in objective.parameters()))
            self.folder.forget_after(self.step)
        processes = self.accelerator.num_processes
        facts = circumstances(objective.exports(), data, validation, self.device, processes)
        self._live = Live(self.folder.path, {"run": self.folder.facts, **facts}, settings.page_every)
        self._model, self._optimizer = self.accelerator.prepare(objective, self._adam)
        self._stop = Stop()

    def run(self) -> nn.Module:
        """Train to the last step and return the averaged flow, in evaluation mode.

        Raises:
            KeyboardInterrupt: after Ctrl-C, SIGTERM or :meth:`stop`, once the current step is finished and
                saved.
            FloatingPointError: when the loss is no longer finite; the last checkpoint is an earlier one.
        """
        if not self.main:
            return self._train()
        with only_writer(self.folder.path), self._live:
            return self._train()

    def stop(self) -> None:
        """Stop the run after the current step; for other threads, as a timer's, of every process."""
        self._stop.ask()

    def _train(self) -> nn.Module:
        settings = self.settings
        self._batches.start = self.step
        batches = loader(self.data, self._batches, settings.workers, pin=self.device.type == "cuda")
        bar = progress_bar(
            self.progress, total=settings.steps, initial=self.step, desc="training", unit="step"
        )
        meter = Meter(self.step)
        self._model.train()
        with bar, self._stop.on_signals():
            while self.step < settings.steps:
                meter.add(self._advance(batches))
                bar.update()
                # Only reports and validations synchronise with the device.
                end, stop = self.step == settings.steps, self._stop.agreed(self.step, self.accelerator)
                look = end or self.step % settings.validate_every == 0
                save = look or stop or self.step % settings.checkpoint_every == 0
                if report := save or self.step % settings.log_every == 0:
                    self._report(meter, bar)
                with meter.paused():
                    if look and self.main and not stop:
                        self._look()
                    if save and self.main:
                        scaler, final = self.accelerator.scaler, end or stop
                        self.folder.save(self.step, self._modules(), self._adam, scaler, final=final)
                    if report and self.main:
                        self._live.show()
                if stop:
                    raise self._stop.error()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        averaged = self.averages.first
        if self.main:
            for half_life, model in self.averages.models.items():
                suffix = "" if model is averaged else f"-{half_life}"
                for name, network in model.exports().items():
                    self.folder.export(name + suffix, network, self._facts())
        return averaged.flow.eval()

    def seconds_per_step(self, steps: int = 3) -> float:
        """Return the mean time of some steps, which change the weights: use a throw-away trainer."""
        batches = loader(self.data, self._batches, 0, pin=False)
        float(self._advance(batches)["loss"])  # the first one warms up
        started = time.perf_counter()
        for _ in range(steps):
            losses = self._advance(batches)
        float(losses["loss"])  # waits for the device, which may lag behind by many steps
        return (time.perf_counter() - started) / steps

    def _advance(self, batches: Iterator[Loaded]) -> dict[str, Tensor]:
        """Take one optimiser step, update the averages, and return the losses, on the device."""
        settings = self.settings
        losses: dict[str, Tensor] = {}
        for group in self._adam.param_groups:
            group["lr"] = settings.learning_rate(self.step)
        for part in range(settings.accumulate):
            key = (settings.seed, self.step, part, self._batches.rank)
            seed_default(stream(*key, 1), self.device)  # dropout draws from torch's default generators
            self._generator.manual_seed(stream(*key))
            x1, x0 = self._prepare(next(batches), train=True)
            whole = part == settings.accumulate - 1
            with contextlib.nullcontext() if whole else self.accelerator.no_sync(self._model):
                found = self._model(x1, x0, step=self.step, generator=self._generator)
                self.accelerator.backward(found["loss"] / settings.accumulate)
            for name, loss in found.items():
                share = loss.detach() / settings.accumulate
                losses[name] = losses[name] + share if name in losses else share
        if settings.clip is not None:
            losses["gradient_norm"] = self.accelerator.clip_grad_norm_(
                self._model.parameters(), settings.clip
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self.averages.update(self.step)
        return losses

    def _prepare(self, loaded: Loaded, train: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return ``(x1, x0)``, scaled and on the device; ``x0`` is ``None`` unless the data are pairs."""
        x0, x1 = loaded if isinstance(loaded, tuple | list) else (None, loaded)
        x1 = datasets.scale(x1.to(self.device, non_blocking=True))
        x0 = None if x0 is None else x0.to(self.device, non_blocking=True)
        if train and self.settings.flip:
            flipped = datasets.random_flip(x1 if x0 is None else torch.cat([x1, x0], 1), self._generator)
            x1, x0 = (flipped, None) if x0 is None else flipped.chunk(2, 1)
        if self.settings.channels_last and x1.ndim == 4:
            x1 = x1.contiguous(memory_format=torch.channels_last)
        return x1, x0

    def _check(self) -> None:
        """Run one batch to check shapes."""
        self._generator.manual_seed(0)
        training = self.objective.training
        with torch.no_grad():
            x1, x0 = self._prepare(self.data[[0, len(self.data) - 1]])
            if x0 is None:  # those of pairs are what a field makes
                datasets.warn_of_levels(x1, self.data.name)
            elif self.settings.flip and not self._mirrored:
                raise ValueError("flip: would mirror the samples of pairs, not their noises; leave it out.")
            self.objective.eval().check(x1, x0, self._generator)
        self.objective.train(training)

    def _report(self, meter: Meter, bar: ProgressBar) -> None:
        """Log the mean losses since the last report; raise when they are not finite."""
        settings = self.settings
        losses = {name: float(self.accelerator.reduce(x, "mean")) for name, x in meter.means().items()}
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(
                f"the loss became NaN or infinite between steps {meter.since} and {self.step}; lower lr (now "
                f"{settings.lr:g}) or set clip=1. The last checkpoint is "
                f"{self.folder.latest() or 'not written yet'}."
            )
        rate = meter.rate(self.step) * settings.batch
        bar.set_postfix(refresh=False, loss=f"{losses['loss']:.4f}", samples_per_s=f"{rate:.0f}")
        self._log(
            {**losses, "lr": settings.learning_rate(self.step - 1), "samples_per_second": round(rate, 2)}
        )
        meter.reset(self.step)

    def _look(self) -> None:
        """Validate and write previews with the averaged weights."""
        averaged = self.averages.first
        held_out = self.validation or self.data
        self._generator.manual_seed(stream(self.settings.seed))
        rows = _monitor.spread(len(held_out), _monitor.SAMPLES)
        stem = self.folder.path / "previews" / f"step-{self.step:08d}"
        # In float32 whatever the training precision, as few-step errors are small.
        with torch.no_grad():
            losses = averaged.validate([self._prepare(held_out[part]) for part in rows], self._generator)
            where = "averaged" if self.validation is None else "validation"
            figures = {f"{where}_{name}": loss for name, loss in losses.items()}
            if self.validation is not None:
                self.folder.judge(losses["loss"])
            self._log(figures | averaged.preview(self.data.shape, self.device, stem))

    def _log(self, figures: dict[str, float]) -> None:
        if self.main:
            samples = self.step * self.settings.batch
            self.folder.log({"step": self.step, "samples": samples, **figures, "time": time.time()})
            if self.settings.trackers:
                self.accelerator.log(figures, step=self.step)

    def _modules(self) -> dict[str, nn.Module]:
        averages = {f"average-{half_life}": model for half_life, model in self.averages.models.items()}
        return {"objective": self.objective, **averages}

    def _facts(self) -> dict[str, Any]:
        """Return the facts for an exported network: how to use it, and its training."""
        return {
            "shape": list(self.data.shape),
            "schedule": self.objective.schedule.to_dict(),
            "prediction": "velocity",
            "training": {"steps": self.step, **self.folder.facts},
        }
