"""``fewstep train``: train a flow and its coupling."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from .._device import check_device
from .._files import write_text
from ..flows import Trainer
from ..flows.config import TrainConfig
from ._common import report, watched
from ._places import named_after
from ._training import watch, written

__all__ = ["command"]

#: Samples per step in a dry run on a CPU, where a whole batch could take minutes.
_TIMED = 8


def command(
    *,
    training: TrainConfig,
    out: Path | None = None,
    device: str | None = None,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Train a flow by flow matching, with a fixed or learned coupling.

    Several processes: torchrun --nproc_per_node 2 -m fewstep train ..., or accelerate launch. Values such as
    those of --network and --ema are YAML: --ema '[500000, 50000]'. For configurations, see configs/.

    Args:
        out: folder of the run, runs/DATA-COUPLING by default; a run in it is resumed.
        device: cpu, or the device that accelerate chooses.
        dry_run: show the plan of the training and its estimated duration.
    """
    if device is not None:
        check_device(device)

    out = out or Path("runs") / f"{named_after(training.data)}-{training.coupling}"
    train_data, held_out = training.load_data()
    torch.manual_seed(training.seed)  # the fresh weights
    objective = training.objective(train_data.shape)
    facts: dict[str, Any] = {
        "config": training.to_dict(),
        "samples": len(train_data),
        "shape": list(train_data.shape),
        "parameters": {
            name: sum(p.numel() for p in module.parameters()) for name, module in objective.exports().items()
        },
        "epochs": round(training.steps * training.batch / len(train_data), 2),
    }
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            settings = training.settings()
            if (
                torch.get_default_device().type == "cpu" and not torch.cuda.is_available()
            ) or device == "cpu":
                small = min(settings.batch, _TIMED)
                settings = replace(settings, batch=small, accumulate=1, workers=0)
            trial = Trainer(objective, train_data, settings, out=folder, device=device, progress=False)
            seconds = trial.seconds_per_step() * training.batch / settings.batch
        facts |= {"seconds_per_step": seconds, "device": str(trial.device)}
        report(as_json, facts, lambda: _plan(facts))
        return

    trainer = Trainer(
        objective,
        train_data,
        training.settings(),
        out=out,
        validation=held_out,
        device=device,
        progress=watched(as_json),
    )
    began = trainer.step
    if trainer.main:
        write_text(out / "config.yaml", yaml.safe_dump(training.to_dict(), sort_keys=False))
    watch(trainer, as_json)
    trainer.run()
    if not trainer.main:
        return
    files = written(out)
    flow = files["flow"]
    facts |= {"out": str(out), "resumed_from": began, "files": files}
    resumed = f", from step {began} on" if began else ""
    report(
        as_json,
        facts,
        lambda: (
            f"trained to step {trainer.step}{resumed}\n"
            f"wrote {', '.join(files.values())}, {out / 'metrics.jsonl'} and previews\n"
            f"next: fewstep sample {flow} midpoint:8, or fewstep fit {flow} --nfe 4,6,8"
        ),
    )


def _plan(facts: dict[str, Any]) -> str:
    config, seconds = facts["config"], facts["seconds_per_step"]
    networks = ", ".join(f"{name} {count:,} parameters" for name, count in facts["parameters"].items())
    minutes = seconds * config["steps"] / 60
    total = f"{minutes:.3g} minutes" if minutes < 120 else f"{minutes / 60:.3g} hours"
    return (
        yaml.safe_dump(config, sort_keys=False, default_flow_style=None).rstrip()
        + f"\n\n{facts['samples']:,} samples of shape {tuple(facts['shape'])}; {networks}\n"
        f"{config['steps']:,} steps, {facts['epochs']:g} epochs; about {seconds:.3g} s a step on "
        f"{facts['device']}, {total} in all\nnothing was trained or written"
    )
