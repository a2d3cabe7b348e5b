"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from .. import data as datasets
from .._extras import require
from .._progress import progress_bar
from ..data import Dataset
from ..report.pictures import is_picture
from ..schedules import CondOT
from . import _monitor
from ._averages import Averages
from ._batches import Batches, Loaded, loader, stream
from ._run_folder import RunFolder
from .couplings import Coupling, Learned, Paired
from .objective import FlowMatching, Losses
from .settings import Settings

__all__ = ["Trainer"]


class Trainer:
    """Trains a flow, and the coupling with it where that is learned.

    Everything random in step ``k`` (data, noise, times, flips, dropout) comes from streams keyed by the
    seed, the process and ``k``. A run that was killed at any moment therefore goes on, from its last
    checkpoint, with the very steps it would have taken.

    Args:
        flow: ``flow(x, t) -> velocity``; trained in place.
        data: what to train on; see :mod:`fewstep.data`.
        coupling: how noise and data are coupled; independent when ``None``.
        settings: how to train.
        out: folder of the run. If it holds checkpoints of the same run, training resumes.
        validation: held-out data; the best checkpoint is the one with the least loss on them.
        device: ``None`` leaves the choice to `accelerate`; ``"cpu"`` stays there.
        progress: show a progress bar on the main process.

    The folder receives ``metrics.jsonl``, ``checkpoints/``, ``previews/`` and, at the end,
    ``flow.safetensors`` (the averaged weights) and ``encoder.safetensors`` if the coupling was learned.

    Raises:
        ValueError: when data, network, coupling and settings do not fit together, or the folder holds
            another run; before anything is trained.
    """

    def __init__(
        self,
        flow: nn.Module,
        data: Dataset,
        coupling: Coupling | None = None,
        settings: Settings | None = None,
        *,
        out: str | os.PathLike[str],
        validation: Dataset | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.data, self.validation, self.progress = data, validation, progress
        if validation is not None and validation.shape != data.shape:
            raise ValueError(
                f"validation: has samples of shape {validation.shape}, but the data {data.shape}; prepare "
                "both alike."
            )
        if settings.flip and not is_picture(data.shape):
            raise ValueError(f"flip: needs pictures, not samples of shape {data.shape}; leave it out.")

        objective = FlowMatching(flow, coupling)
        self.accelerator = _accelerator(settings, device, out)
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.device: torch.device = self.accelerator.device
        objective.to(self.device)
        if settings.channels_last:
            objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batches = Batches(  # its own complaints come first
            len(data), settings.batch, seed=settings.seed, parts=settings.accumulate,
            rank=self.rank, world=self.world,
        )  # fmt: skip
        self._try_one_batch(objective)

        # Adam's moments and the averages start from the float32 weights, before anything is wrapped.
        self.averages = Averages(objective, settings.ema, settings.batch)
        self.objective = objective
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
        self._adam = kind(
            objective.parameters(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.folder = RunFolder(out, _describe(objective, data, settings), settings)
        self.step = self.folder.resume(self._modules(), self._adam, self.accelerator.scaler)
        if self.accelerator.is_main_process:
            self.folder.forget_after(self.step)
        self.folder.check_space(sum(p.numel() * p.element_size() for p in objective.parameters()))
        self._model, self._optimizer = self.accelerator.prepare(objective, self._adam)
        self._stop = False

    def run(self) -> nn.Module:
        """Train to the last step and return the averaged flow, in evaluation mode.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, when the step at hand is finished and saved.
            FloatingPointError: when the loss is no longer finite; the last checkpoint is from before.
        """
        settings, main = self.settings, self.accelerator.is_main_process
        self._batches.start = self.step
        batches = loader(self.data, self._batches, settings.workers, pin=self.device.type == "cuda")
        generator = torch.Generator(self.device)
        sums = torch.zeros(len(Losses._fields) + 1, device=self.device)
        since, started = self.step, time.perf_counter()
        bar = progress_bar(
            self.progress and main, total=settings.steps, initial=self.step, desc="training", unit="step"
        )
        self._model.train()
        with bar, self._signals():
            while self.step < settings.steps:
                sums += self._advance(batches, generator)
                self.averages.update(self.objective, self.step)
                bar.update()
                last = self.step == settings.steps or self._stop
                due = self.step % settings.log_every == 0
                validate = self.step % settings.validate_every == 0 or self.step == settings.steps
                save = self.step % settings.checkpoint_every == 0
                if not (due or validate or save or last):
                    continue
                # From here on the device is waited for: once every so many steps.
                means = self.accelerator.reduce(sums, "mean") / max(1, self.step - since)
                if not torch.isfinite(means).all():
                    self._explain_divergence(since)
                if due or last:
                    seconds = time.perf_counter() - started
                    rate = (self.step - since) * settings.batch / seconds
                    line = self._line(means.tolist(), rate)
                    bar.set_postfix(loss=f"{line['loss']:.4f}", samples_per_s=f"{rate:.0f}")
                    sums.zero_()
                    since, started = self.step, time.perf_counter()
                    self._log(line)
                paused = time.perf_counter()
                if validate and not self._stop and main:
                    self._look(generator)
                if (save or validate or last) and main:
                    self.folder.save(
                        self.step, self._modules(), self._adam, self.accelerator.scaler, final=last
                    )
                started += time.perf_counter() - paused  # the rate is that of training alone
                if self._stop:
                    raise KeyboardInterrupt
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        averaged: FlowMatching = self.averages.first  # type: ignore[assignment]
        if main:
            self._export(averaged)
        return averaged.flow.eval()

    def seconds_per_step(self, steps: int = 3) -> float:
        """Time some steps. They change the weights: for an estimate, on a trainer that is thrown away."""
        batches = loader(self.data, self._batches, 0, pin=False)
        generator = torch.Generator(self.device)
        self._advance(batches, generator)  # the first one warms up
        started = time.perf_counter()
        for _ in range(steps):
            float(self._advance(batches, generator)[0])
        return (time.perf_counter() - started) / steps

    def _advance(self, batches: Iterator[Loaded], generator: torch.Generator) -> Tensor:
        """One optimiser step; returns the losses and the norm of the gradient, on the device."""
        settings = self.settings
        sums = torch.zeros(len(Losses._fields) + 1, device=self.device)
        for group in self._adam.param_groups:
            group["lr"] = settings.learning_rate(self.step)
        for part in range(settings.accumulate):
            key = (settings.seed, self.step, part, self.rank)
            torch.manual_seed(stream(*key, 1))  # dropout draws from torch's global generators
            generator.manual_seed(stream(*key))
            x1, x0 = self._prepare(next(batches), generator, train=True)
            done = part == settings.accumulate - 1
            with contextlib.nullcontext() if done else self.accelerator.no_sync(self._model):
                losses = self._model(x1, x0, step=self.step, generator=generator)
                self.accelerator.backward(losses.total / settings.accumulate)
            sums[:-1] += torch.stack([loss.detach() for loss in losses]) / settings.accumulate
        if settings.clip is not None:
            sums[-1] = self.accelerator.clip_grad_norm_(self._model.parameters(), settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        return sums

    def _prepare(
        self, loaded: Loaded, generator: torch.Generator, train: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Data, and the noises of pairs, as the objective takes them."""
        x0, x1 = loaded if isinstance(loaded, tuple | list) else (None, loaded)
        x1 = datasets.scale(x1.to(self.device, non_blocking=True))
        x0 = None if x0 is None else x0.to(self.device, non_blocking=True)
        if train and self.settings.flip:
            x1 = datasets.random_flip(x1, generator)
        if self.settings.channels_last and x1.ndim == 4:
            x1 = x1.contiguous(memory_format=torch.channels_last)
        return x1, x0

    def _try_one_batch(self, objective: FlowMatching) -> None:
        """Let data, network and coupling meet before any long work."""
        first = self.data[[0, min(1, len(self.data) - 1)]]
        pairs = isinstance(first, tuple)
        if pairs and not isinstance(objective.coupling, Paired):
            raise ValueError(
                "coupling: the data are pairs with noises of their own, which "
                f"{type(objective.coupling).__name__} would not use; train on them with Paired."
            )
        generator = torch.Generator(self.device).manual_seed(0)
        x1, x0 = self._prepare(first, generator)
        was_training = objective.training
        objective.eval()
        with torch.no_grad():
            x0 = objective.coupling(x1, x0, generator=generator).x0
            velocity = objective.flow(x0, torch.rand(len(x1), device=self.device))
        objective.train(was_training)
        if velocity.shape != x1.shape:
            raise ValueError(
                f"flow: returns shape {tuple(velocity.shape)} for data of shape {tuple(x1.shape)}; a "
                "velocity is like the data: give the network as many output channels as the data have."
            )

    def _look(self, generator: torch.Generator) -> None:
        """Validate, and take pictures, with the averaged weights."""
        objective: FlowMatching = self.averages.first  # type: ignore[assignment]
        held_out = self.validation or self.data
        generator.manual_seed(stream(self.settings.seed, 0x7A11))
        rows = _monitor.spread(len(held_out), _monitor.SAMPLES)
        loaded = [self._prepare(held_out[part], generator) for part in rows]
        with torch.no_grad(), self.accelerator.autocast():
            line = _monitor.validate(objective, loaded, generator)
            flow = objective.flow
            line |= _monitor.preview(
                flow, self.data.shape, self.device, self.folder.path / "previews" / f"step-{self.step:08d}"
            )
        if self.validation is not None:
            self.folder.judge(line["validation_loss"])
        self._log({"step": self.step, **line})

    def _line(self, means: list[float], rate: float) -> dict[str, float]:
        line: dict[str, float] = {"step": self.step, "samples": self.step * self.settings.batch}
        line |= dict(zip(("loss", "flow_matching", "kl", "gradient_norm"), means, strict=True))
        line |= {
            "beta": self.objective.coupling.kl_weight(self.step - 1),
            "lr": self.settings.learning_rate(self.step - 1),
            "samples_per_second": round(rate, 2),
            "time": round(time.time(), 3),
        }
        if self.settings.clip is None:
            del line["gradient_norm"]
        return line

    def _modules(self) -> dict[str, nn.Module]:
        averages = {f"average-{half_life}": self.averages[half_life] for half_life in self.averages.models}
        return {"objective": self.objective, **averages}

    def _log(self, line: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.folder.log(line)
            if self.settings.trackers:
                self.accelerator.log(line, step=self.step)

    def _explain_divergence(self, since: int) -> None:
        raise FloatingPointError(
            f"the loss became NaN or infinite between steps {since} and {self.step}; lower lr (now "
            f"{self.settings.lr:g}) or set clip=1. The last checkpoint is "
            f"{self.folder.latest() or 'not written yet'}."
        )

    def _export(self, averaged: FlowMatching) -> None:
        facts = {
            "shape": list(self.data.shape),
            "schedule": CondOT().to_dict(),
            "prediction": "velocity",
            "training": {"steps": self.step, **self.folder.facts},
        }
        self.folder.export("flow", averaged.flow, facts)
        if isinstance(averaged.coupling, Learned) and isinstance(averaged.coupling.encoder, nn.Module):
            self.folder.export("encoder", averaged.coupling.encoder, facts)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the run after the step at hand, saved."""

        def ask(number: int, frame: FrameType | None) -> None:
            self._stop = True

        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may listen
            return
        before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def _accelerator(settings: Settings, device: str | None, out: str | os.PathLike[str]) -> Any:
    accelerate = require("accelerate", "train")
    # A second run in one process may want another precision, which the shared state would refuse.
    require("accelerate.state", "train").AcceleratorState._reset_state()
    accelerator = accelerate.Accelerator(
        mixed_precision=settings.precision,
        cpu=device == "cpu" or None,
        log_with=list(settings.trackers) or None,
        project_dir=str(out),
    )
    if settings.trackers:
        accelerator.init_trackers("fewstep", config={k: str(v) for k, v in vars(settings).items()})
    return accelerator


def _describe(objective: FlowMatching, data: Dataset, settings: Settings) -> dict[str, Any]:
    """What a run is: the facts that a resumption must share."""
    flow = objective.flow
    facts = {
        "flow": {"name": type(flow).__name__, **getattr(flow, "config", {})},
        "coupling": objective.coupling.describe(),
        "data": {"name": data.name, "count": len(data), "fingerprint": data.fingerprint()},
        "settings": dataclasses.asdict(settings),
    }
    through_json: dict[str, Any] = json.loads(json.dumps(facts))
    return through_json
