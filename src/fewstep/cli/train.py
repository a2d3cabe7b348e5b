"""``fewstep train``: train a flow, and its coupling."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml

from .._device import check_device
from .._files import write_text
from ..flows import Trainer
from ..flows.config import TrainConfig
from ._common import JsonOption, report, watched
from ._training import watch, written

__all__ = ["command"]

#: Samples of a step that a dry run times on a CPU, where a whole batch could take minutes.
_TIMED = 8


def command(
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with the entries of a training; see configs/.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; a run in it is resumed.")] = Path(
        "runs/train"
    ),
    data: Annotated[
        str | None,
        typer.Option(help="digits, mnist, fashion-mnist, cifar10, ffhq, afhq, celebahq, or a path."),
    ] = None,
    validation: Annotated[str | None, typer.Option(help="'test', or a path.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side that pictures are resized to.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grey pictures, 3 for RGB.")] = None,
    network: Annotated[
        str | None,
        typer.Option(help="unet, mlp, mnist, cifar10, ffhq, afhq, celebahq256, or a JSON file of Fast-ODE."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Likewise, for a learned coupling.")] = None,
    coupling: Annotated[str | None, typer.Option(help="independent, learned, mixed, minibatch-ot.")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the KL term of a learned coupling.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a step, over all processes.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load data.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")] = None,
    entry: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other entry, as in --set clip=1 --set 'ema=[500000, 50000]'."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, or what accelerate finds.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained and how long it would take.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a flow by flow matching, over a coupling that may be learned with it.

    Several processes: torchrun --nproc_per_node 2 -m fewstep train ..., or accelerate launch.
    """
    given = {
        "data": data, "validation": validation, "resolution": resolution, "channels": channels,
        "network": network, "encoder": encoder, "coupling": coupling, "beta": beta, "steps": steps,
        "batch": batch, "lr": lr, "precision": precision, "workers": workers, "seed": seed,
    }  # fmt: skip
    entries = _read(config) | _parse(entry or []) | {k: v for k, v in given.items() if v is not None}
    resolved = TrainConfig.parse(entries)
    if device is not None:
        check_device(device)

    train_data, held_out = resolved.load_data()
    torch.manual_seed(resolved.seed)  # the fresh weights
    objective = resolved.objective(train_data.shape)
    facts: dict[str, Any] = {
        "config": resolved.to_dict(),
        "samples": len(train_data),
        "shape": list(train_data.shape),
        "parameters": {
            name: sum(p.numel() for p in module.parameters()) for name, module in objective.exports().items()
        },
        "epochs": round(resolved.steps * resolved.batch / len(train_data), 2),
    }
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            settings = resolved.settings()
            if (
                torch.get_default_device().type == "cpu" and not torch.cuda.is_available()
            ) or device == "cpu":
                small = min(settings.batch, _TIMED)
                settings = replace(settings, batch=small, accumulate=1, workers=0)
            trial = Trainer(objective, train_data, settings, out=folder, device=device, progress=False)
            seconds = trial.seconds_per_step() * resolved.batch / settings.batch
        facts |= {"seconds_per_step": seconds, "device": str(trial.device)}
        report(as_json, facts, lambda: _plan(facts))
        return

    trainer = Trainer(
        objective,
        train_data,
        resolved.settings(),
        out=out,
        validation=held_out,
        device=device,
        progress=watched(as_json),
    )
    began = trainer.step
    if trainer.main:
        write_text(out / "config.yaml", yaml.safe_dump(resolved.to_dict(), sort_keys=False))
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


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config: {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"--config: {path} must hold entries as 'name: value', not {entries!r}.")
    return entries


def _parse(entries: list[str]) -> dict[str, Any]:
    """``name=value`` with values in YAML."""
    parsed = {}
    for text in entries:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set: must be name=value, not {text!r}.")
        try:
            parsed[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"--set: the value of {text!r} is not YAML.") from None
    return parsed


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
