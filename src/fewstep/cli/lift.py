"""``fewstep lift``: correct the states of a fitted solver by small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from .._adaptive import Adaptive
from .._names import check_name
from ..fitting import Reference
from ..fitting.losses import ENDPOINT_LOSSES
from ..lifted import Lifted
from ..lifting import Training, lift
from ._common import choose_solver, report, watched
from ._options import AtLeast, helped
from ._pipelines import MODEL_OR_PIPELINE, Pipeline, load_with_conditions
from ._places import named_after

__all__ = ["command"]

_STATES = ("every", "last")


@helped(
    model=MODEL_OR_PIPELINE,
    states=f"One of {', '.join(_STATES)}: correct each state, with gradients through the model, or the last "
    "alone, where the model is only called.",
    loss=f"One of {', '.join(ENDPOINT_LOSSES)}.",
)
def command(
    model: str,
    solver: str,
    *,
    pairs: Annotated[int, AtLeast(64)] = 4096,
    states: str = "every",
    loss: str = "rmse",
    teacher: str | None = None,
    training: Training = Training(),  # noqa: B008 -- frozen
    reference: Reference = Reference(),  # noqa: B008 -- frozen
    conditions: Path | None = None,
    per_sample: Path | None = None,
    pipeline: Pipeline = Pipeline(),  # noqa: B008 -- frozen
    out: Path | None = None,
    seed: int = 1,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Train small networks that correct the states of a solver, which makes as many calls as before.

    Args:
        solver: the solver: a file of fewstep fit, or a classical solver such as midpoint:4.
        pairs: pairs of noise and target to make, a sixth of them for validation.
        teacher: solver of more calls that makes the targets in place of the reference, such as a fit of twice
            as many calls.
        out: folder of the lifted solver, solvers/MODEL-SOLVER-lifted by default; a lift that was interrupted
            goes on there.
        seed: seed of the noises, the first weights and the batches.
    """
    check_name("--states:", states, _STATES)
    check_name("--loss:", loss, ENDPOINT_LOSSES)
    loaded = load_with_conditions(model, pipeline, conditions, per_sample, device)
    batch = loaded.batch(256)
    loaded = loaded.of(pairs)
    table = choose_solver(solver, loaded.field)
    better = None if teacher is None else choose_solver(teacher, loaded.field)
    if isinstance(table, Adaptive) or isinstance(better, Adaptive):
        raise ValueError(
            "SOLVER: lifted solvers and their teachers have fixed numbers of calls, unlike adaptive; give a "
            "solver file, or such as midpoint:4."
        )
    out = out or Path("solvers") / f"{named_after(model, solver)}-lifted"
    made = lift(
        table,
        loaded.field,
        pairs=pairs,
        states=states,  # type: ignore[arg-type]  # checked
        loss=loss,
        teacher=better,
        training=training,
        reference=reference,
        seed=seed,
        folder=out / "work",
        batch=batch,
        progress=watched(as_json),
        **loaded.given,
    )
    if not isinstance(made, Lifted):
        report(as_json, {"model": loaded.name, "folder": None}, lambda: "nothing is written")
        return
    made.save(out)
    words = f"{made}\nwrote {out}\nnext: fewstep compare {model} {solver} {out}"
    report(as_json, {"model": loaded.name, "folder": str(out), **made.lift}, lambda: words)
