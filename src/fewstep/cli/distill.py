"""``fewstep distill``: train a student that samples in one call, or in a few."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .._adaptive import Adaptive
from ..data import PairShards
from ..field import Field
from ..flows import LOSSES, Distillation, Settings, Trainer, sample_error, warm_start
from . import _training as training
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    choose_solver,
    report,
    watched,
)

__all__ = ["command"]


def command(
    model: ModelArgument,
    pairs: Annotated[
        Path, typer.Option("--pairs", help="Folder of pairs, as fewstep sample --format pairs writes it.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run; an interrupted one goes on there.")
    ] = Path("runs/distilled"),
    loss: Annotated[str, typer.Option("--loss", help="mse or pseudo-huber.")] = "mse",
    solver: Annotated[
        str, typer.Option("--solver", help="How the student is sampled: euler:1, or a solver of more calls.")
    ] = "euler:1",
    test_pairs: Annotated[
        int, typer.Option("--test-pairs", min=1, help="The last so many pairs are for the test error.")
    ] = 512,
    steps: training.StepsOption = 20_000,
    batch: training.BatchOption = 256,
    lr: training.LrOption = 1e-4,
    warmup: training.WarmupOption = 500,
    clip: training.ClipOption = None,
    ema: training.EmaOption = 500_000,
    precision: training.PrecisionOption = "no",
    workers: training.WorkersOption = 0,
    checkpoint_every: training.CheckpointOption = 1000,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Distil a flow into a student that samples in one call, or in a few.

    The student starts as MODEL and learns to make the samples of the pairs from their noises.
    """
    field = training.load_trainable(model, device)
    name = loss.replace("-", "_")
    if name not in LOSSES:
        raise ValueError(f"--loss: must be mse or pseudo-huber, not {loss!r}.")
    few_calls = choose_solver(solver, None, None, field)
    if isinstance(few_calls, Adaptive):
        raise ValueError("--solver: a student has a fixed number of calls; give euler:1 or such.")
    data = PairShards(pairs)
    if field.shape not in (None, data.shape):
        raise ValueError(
            f"--pairs: {pairs} holds samples of shape {data.shape}, but {model} samples shape {field.shape}; "
            "make pairs with that model."
        )
    train, test = data.split(test_pairs)
    data.check()
    settings = Settings(
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup,
        clip=clip,
        ema=(ema,),
        precision=precision,  # type: ignore[arg-type]  # a word, which Settings checks
        seed=seed,
        workers=workers,
        checkpoint_every=checkpoint_every,
    )
    teacher_error = sample_error(field, few_calls, test)
    trainer = Trainer(
        Distillation(warm_start(field), LOSSES[name], few_calls),
        train,
        settings,
        out=out,
        validation=test,
        device="cpu" if device == "cpu" else None,
        progress=watched(as_json),
    )
    training.watch(trainer, as_json)
    student = Field(trainer.run(), shape=data.shape)
    if not trainer.main:
        return
    result = {
        "student": str(out / "flow.safetensors"),
        "solver": few_calls.name,
        "calls": few_calls.nfe,
        "loss": name,
        "steps": steps,
        "train_pairs": len(train),
        "test_pairs": len(test),
        "rmse": sample_error(student, few_calls, test),
        "teacher_rmse": teacher_error,
    }
    files = ", ".join(training.written(out).values())
    report(as_json, result, lambda: _in_words(result, solver, files))


def _in_words(result: dict[str, Any], solver: str, files: str) -> str:
    calls = "1 call" if result["calls"] == 1 else f"{result['calls']} calls"
    return (
        f"RMSE to {result['test_pairs']} held-out samples with {calls}: {result['rmse']:.4f}; the model it "
        f"was distilled from: {result['teacher_rmse']:.4f}\n"
        f"wrote {files}\n"
        f"next: fewstep sample {result['student']} {solver}"
    )
