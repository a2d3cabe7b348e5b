"""``fewstep distill``: train a student that samples in one or a few calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._adaptive import Adaptive
from .._names import check_name
from ..data import PairShards
from ..field import Field
from ..flows import LOSSES, Distillation, Settings, Trainer, sample_error, warm_start
from . import _training as training
from ._common import MODEL, choose_solver, report, watched
from ._options import Positive, helped
from ._places import named_after

__all__ = ["command"]


@helped(model=MODEL, loss=f"One of {', '.join(LOSSES)}.".replace("_", "-"))
def command(
    model: str,
    *,
    pairs: Path,
    out: Path | None = None,
    loss: str = "mse",
    solver: str = "euler:1",
    test_pairs: Positive = 512,
    settings: Settings = training.SETTINGS,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Distil a flow into a student that samples in one or a few calls.

    The student starts as MODEL and is trained to map the noises of the pairs to their samples.

    Args:
        pairs: folder of pairs, from fewstep sample --format pairs.
        out: folder of the run, runs/MODEL-SOLVER-distilled by default; an interrupted run is resumed there.
        solver: solver of the student: euler:1, or one with more calls.
        test_pairs: number of pairs, the last ones, for the test error.
    """
    field = training.load_trainable(model, device)
    out = out or Path("runs") / f"{named_after(model, solver)}-distilled"
    name = loss.replace("-", "_")
    check_name("--loss:", name, LOSSES)
    few_calls = choose_solver(solver, field)
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
        "steps": settings.steps,
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
