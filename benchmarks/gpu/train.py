"""Two flows on CIFAR-10, over the independent coupling and over a learned one, for half of the time each.

Network: the package's U-Net on 2 x 2 pixels folded into channels, with 128 channels at 16 x 16, and 192 and
attention at 8 x 8: 9.4 M parameters, 1.95 GFLOP a picture. Full resolution takes four times the FLOPs, most
in layers of 64 to 128 channels that are bound by memory; the DDPM++ U-Net takes 3.5 to 9 GFLOP at this size,
with attention in float32. Transformers on patches of 2 x 2 do well on CIFAR-10 (U-ViT; Bao et al., CVPR
2023), so that folding should cost little quality. Encoder: the same at half the width, with one block a
level.

Training: Adam with batches of 512; a peak learning rate of 6e-4, between torchcfm's 2e-4 at batch 128 and
EDM's 1e-3 at batch 512; warm-up, and a cosine decay to zero at the end of the time; gradients clipped at 1;
flips; an average of the weights over 200,000 pictures (early on, over a tenth of those seen); bfloat16,
channels last, and, on a GPU with over 150 seconds for a model, compiled networks, which cost about a minute
of them. The number of steps follows from a trial of some steps. With --weights training goes on from averaged
weights, with new moments and a new warm-up.

Files: weights-*.safetensors (averaged, in float16), moments.npz (of the features of the training pictures),
train.json with loss curves, and preview.png (independent, then learned: 4 and 8 calls of midpoint, and the
reference).
"""

from __future__ import annotations

import copy
import json
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fewstep as fs
from fewstep.comparison import FeatureQuality
from fewstep.data import ArrayDataset, save_pictures
from fewstep.flows import FlowMatching, Independent, Learned, Settings, Trainer
from fewstep.networks import GaussianEncoder, UNet

from . import _cifar, _weights
from ._record import Options, Record

__all__ = ["BETA", "MODELS", "run"]

MODELS = ("independent", "learned")
#: Weight of the KL term of the learned coupling.
BETA = 10.0

#: Share of the time for weights, previews and quality.
RESERVE = 0.1
#: Share of the remaining time of a model that its steps may fill, by the measured time of a step.
FILLED = 0.97
#: Seconds of a model from which its networks are compiled, on a GPU.
COMPILED = 150
#: Steps of the trial, and of a tiny training.
TRIAL, TINY_STEPS = 40, 40
#: Samples for the quality, the seed of their noises, and tolerances of their reference in bfloat16.
SAMPLES, SEED, TOLERANCE = 5000, 20_261_128, 1e-4

PROTOCOL = " ".join((__doc__ or "").split("\n\n")[2].split())


def run(options: Options) -> dict[str, Any]:
    """Train both flows, and write weights, loss curves, previews and quality."""
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    record = Record("train", PROTOCOL, options)
    record.part(
        "training", "seconds with trial and validation; FLOPs are those of three forward passes a picture"
    )
    record.part(
        "quality", "midpoint in bfloat16 against dopri5, and Fréchet distances to the training pictures"
    )
    quality = _cifar.quality(options)
    data = _cifar.pictures(options.data).data
    options.out.mkdir(parents=True, exist_ok=True)
    quality.real.save(options.out / _cifar.MOMENTS)
    if options.weights is None:
        networks, facts = _fresh(options.tiny), {"pictures_seen": dict.fromkeys(MODELS, 0), "sessions": 0}
    else:
        networks, facts = _weights.load(options.weights)
    facts |= {"sessions": facts["sessions"] + 1, "shape": list(data.shape), "data": data.name}
    record.content |= {"facts": facts, "curves": {}}
    end = RESERVE * options.deadline.left
    for k, name in enumerate(MODELS):
        share = (options.deadline.left - end) / (len(MODELS) - k)
        record.attempt(f"training {name}", 0, partial(_train, record, name, share, networks, data))
        _weights.save(options.out, networks, facts)
    rows: list[Tensor] = []
    for name in MODELS:
        measure = partial(_quality, record, name, networks[f"{name}.flow"], quality, rows)
        record.attempt(f"quality {name}", 0 if options.tiny else 5, measure)
    if rows:
        save_pictures(options.out / "preview.png", torch.cat(rows), columns=len(rows[0]))
    return record.finish()


def _fresh(tiny: bool) -> dict[str, nn.Module]:
    """Return new networks; both flows start alike."""
    width, levels, blocks = (8, (1,), 1) if tiny else (64, (2, 3), 2)
    networks: dict[str, nn.Module] = {}
    for name in MODELS:
        torch.manual_seed(0)
        networks[f"{name}.flow"] = UNet(3, width, levels, blocks, patch=2)
    encoder = UNet(3, max(8, width // 2), levels, blocks=1, patch=2, out_channels=6)
    networks["learned.encoder"] = GaussianEncoder(encoder)
    return networks


def _train(
    record: Record, name: str, seconds: float, networks: dict[str, nn.Module], data: ArrayDataset
) -> None:
    """Train a flow for these seconds, and replace its networks by the averaged ones."""
    started, options = time.monotonic(), record.options
    facts, encoder = record.content["facts"], networks.get(f"{name}.encoder")
    coupling = Independent() if encoder is None else Learned(encoder, BETA)
    objective = FlowMatching(networks[f"{name}.flow"], coupling)
    settings = Settings(
        batch=16 if options.tiny else 512, lr=1e-2 if options.tiny else 6e-4, clip=1.0, ema=(200_000,),
        precision="bf16", channels_last=True, compile=_worth_compiling(options.device, seconds), flip=True,
        seed=facts["sessions"], keep=1, page_every=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        try:
            each = _seconds_per_step(objective, data, settings, Path(scratch, "trial"), options)
        except Exception as error:
            if not settings.compile:
                raise
            record.failure(f"compiled networks {name}", error)  # a slower training is better than none
            settings = replace(settings, compile=False)
            each = _seconds_per_step(objective, data, settings, Path(scratch, "second trial"), options)
        lost = time.monotonic() - started
        steps = TINY_STEPS if options.tiny else max(1, int(FILLED * (seconds - lost) / each))
        settings = replace(
            settings, steps=steps, decay="cosine", warmup=max(1, min(500, steps // 20)),
            log_every=max(1, steps // 100), validate_every=steps, checkpoint_every=steps,
        )  # fmt: skip
        trainer = Trainer(
            objective, data, settings, out=Path(scratch, "run"), device=options.device.type, progress=False
        )
        _run(trainer, seconds - (time.monotonic() - started))
        lines = [json.loads(line) for line in Path(scratch, "run", "metrics.jsonl").read_text().splitlines()]
    averaged = trainer.averages.first.exports()
    networks |= {f"{name}.{kind}": network for kind, network in averaged.items()}
    pictures = trainer.step * settings.batch
    facts["pictures_seen"][name] += pictures
    curve = [line for line in lines if "loss" in line]
    keys = ("step", "loss", "flow_matching", "kl", "gradient_norm", "samples_per_second")
    record.content["curves"][name] = {key: [line[key] for line in curve] for key in keys}
    flop = 3 * _forward_flop(averaged, data.shape)
    rate = median(line["samples_per_second"] for line in curve)
    record.row(
        "training", model=name, seconds=time.monotonic() - started, trial_seconds=lost, planned_steps=steps,
        steps=trainer.step, pictures=pictures, pictures_seen=facts["pictures_seen"][name],
        pictures_per_second=rate,
        gflop_per_picture=flop / 1e9, tflop_per_second=flop * rate / 1e12, compiled=settings.compile,
        **{key: lines[-1].get(f"averaged_{key}") for key in ("loss", "kl", "aggregate_variance")},
    )  # fmt: skip


def _run(trainer: Trainer, seconds: float) -> None:
    """Train to the last step, or, if steps take longer than those of the trial, for these seconds."""
    timer = threading.Timer(seconds, trainer.stop)
    timer.start()
    try:
        trainer.run()
    except KeyboardInterrupt:
        if not timer.finished.is_set():
            raise  # by Ctrl-C
    finally:
        timer.cancel()


def _worth_compiling(device: torch.device, seconds: float) -> bool:
    return device.type == "cuda" and seconds > COMPILED


def _seconds_per_step(
    objective: FlowMatching, data: ArrayDataset, settings: Settings, out: Path, options: Options
) -> float:
    """Return the mean time of some steps of a copy of the networks, after the first."""
    trial = Trainer(
        copy.deepcopy(objective), data, settings, out=out, device=options.device.type, progress=False
    )
    return trial.seconds_per_step(3 if options.tiny else TRIAL)


def _forward_flop(networks: dict[str, nn.Module], shape: tuple[int, ...]) -> float:
    """Return the FLOPs of one picture through the flow, and the encoder if there is one."""
    device = next(networks["flow"].parameters()).device
    x, t = torch.zeros(1, *shape, device=device), torch.zeros(1, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for kind, network in networks.items():
            network(x, t) if kind == "flow" else network(x)
    return counter.get_total_flops()


def _quality(
    record: Record, name: str, network: nn.Module, quality: FeatureQuality, rows: list[Tensor]
) -> None:
    """Measure straightness, errors at few calls and Fréchet distances, and keep pictures for the preview."""
    options = record.options
    count, shown = (32, 8) if options.tiny else (SAMPLES, 16)
    field = _cifar.field(network, name, tuple(record.content["facts"]["shape"]), half=True)
    x0 = fs.noise(count, field.shape, seed=SEED, device=options.device)
    tolerances: dict[str, Any] = {"rtol": TOLERANCE, "atol": TOLERANCE, "batch": 1000}
    pairs = fs.reference.pairs(field, x0, **tolerances)
    solvers = [fs.classical.midpoint(steps) for steps in (2, 4)]
    found = fs.compare(field, solvers, noise=pairs, keep=shown, quality=quality, **tolerances)
    distance, at = quality.names[0], found.protocol["reference"]
    for row in found.rows:
        values = {key: row[key] for key in ("nfe", "rmse", "psnr", distance)}
        record.row("quality", model=name, solver=row["solver"], samples=count, **values)
    curvature = found.protocol["curvature"]
    record.row(
        "quality", model=name, solver="reference", samples=count, nfe=at["nfe"], **{distance: at[distance]},
        curvature=curvature["per_dimension"], relative_curvature=curvature["relative"],
    )  # fmt: skip
    rows += [*found.kept.samples, found.kept.reference]
