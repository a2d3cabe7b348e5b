"""``fewstep export``: a solver in the form that another framework takes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from .._extras import require
from .._files import write_text
from .._fitted_for import own_schedule
from .._fitted_guidance import comfyui_settings, fitted_guidance, in_words, pipeline_arguments
from .._hub_files import SOLVER
from .._reading import read_object, reading
from ..adapters import diffusers as diffusers_adapter
from ..adapters import k_diffusion as k_diffusion_adapter
from ..adapters._solver import choose
from ..fitting import Fit
from ..lifted import Lifted
from ..lifting import load
from ..schedules import CondOT, Schedule, from_dict
from ..solver import Solver
from ._common import report
from ._options import AtLeast

__all__ = ["COMMANDS", "command"]

_SETTINGS, _PIPELINE = "scheduler_config.json", "model_index.json"


def diffusers(
    solvers: list[Path],
    *,
    scheduler: Path,
    out: Path,
    nfe: Annotated[int | None, AtLeast(1)] = None,
    guidance: float | None = None,
    as_json: bool = False,
) -> None:
    """Write a scheduler folder for pipelines of diffusers.

    Several numbers of calls become one scheduler, in which num_inference_steps chooses.

    Args:
        solvers: files of solvers or fits.
        scheduler: folder of the pipeline, or of its scheduler, which tells what the network predicts.
        out: folder to write.
        nfe: number of network calls, to take one solver of several.
        guidance: guidance scale, needed for a fit for several.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: must be a folder, not the file {out}.")
    chosen = [one for file in solvers for one in _several(load(file), nfe, guidance)]
    old = _scheduler(scheduler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        made = diffusers_adapter.FewStepScheduler.from_solver(chosen, old)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    made.save_pretrained(out)
    counts = [one.nfe for one in chosen]
    facts = chosen[-1].fitted_for
    arguments = [f"num_inference_steps={max(counts)}", *filter(None, [pipeline_arguments(facts)])]
    lines = [
        "from fewstep.adapters.diffusers import FewStepScheduler",
        f"pipe.scheduler = FewStepScheduler.from_pretrained({str(out)!r})",
        f"pipe(..., {', '.join(arguments)})",
    ]
    result = {"files": [str(out / _SETTINGS)], "nfe": counts, **_guidance(facts), "python": lines}
    calls = " or ".join(map(str, counts))
    report(
        as_json, result, lambda: "\n".join([f"wrote {out / _SETTINGS}: {calls} network calls", "", *lines])
    )


def comfyui(
    solver: Path,
    *,
    out: Path,
    schedule: str | None = None,
    nfe: Annotated[int | None, AtLeast(1)] = None,
    guidance: float | None = None,
    as_json: bool = False,
) -> None:
    """Put a solver where the node of ComfyUI looks for it.

    Args:
        solver: the file of a solver or a fit.
        out: folder of ComfyUI, or its models/fewstep.
        schedule: the network's schedule, if the file names none: cond_ot, vp, cosine, ve or ddpm.
        nfe: number of network calls, to take one solver of several.
        guidance: guidance scale, to take one solver of several.
    """
    folder = out / "models" / "fewstep" if (out / "models").is_dir() else out
    if folder.name != "fewstep" or not folder.parent.is_dir():
        raise ValueError(
            f"--out: must be the folder of ComfyUI, which has models in it, or its models/fewstep, not {out}."
        )
    made = load(solver)
    if nfe is not None or guidance is not None:
        made = choose(made, nfe, guidance)
    rows = [_row(one, _schedule(one, schedule, needed=False)) for one in _listed(made)]
    path = folder / (solver.stem + ".json")
    if isinstance(made, Lifted):
        made.save(folder / solver.resolve().name)
        path = folder / solver.resolve().name / SOLVER
    else:
        made.save(path)
    words = [
        f"wrote {path}",
        "1. install fewstep in the Python of ComfyUI, and its nodes: copy integrations/comfyui/fewstep to",
        "   custom_nodes/fewstep-nodes of ComfyUI",
        f"2. node 'Fewstep Solver': solver {path.relative_to(folder)}; its SAMPLER and SIGMAS into "
        "SamplerCustom",
        *(row["words"] for row in rows),
    ]
    result = {"files": [str(path)], "node": "FewStepSolver", "solvers": rows}
    report(as_json, result, lambda: "\n".join(words))


def k_diffusion(
    solver: Path,
    *,
    out: Path | None = None,
    schedule: str | None = None,
    nfe: Annotated[int | None, AtLeast(1)] = None,
    guidance: float | None = None,
    as_json: bool = False,
) -> None:
    """Write a Python module with a sampler of k-diffusion, which needs torch alone.

    Args:
        solver: the file of a solver or a fit.
        out: file to write; sample_NAME.py by default.
        schedule: the network's schedule, if the file names none: cond_ot, vp, cosine, ve or ddpm.
        nfe: number of network calls; needed if the file has solvers for several.
        guidance: guidance scale; needed if the file has solvers for several.
    """
    chosen = choose(load(solver), nfe, guidance)
    text = k_diffusion_adapter.module(chosen, _schedule(chosen, schedule))
    name = text.partition("\ndef ")[2].partition("(")[0]
    path = Path(f"{name}.py") if out is None else out
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(f"--out: must be a Python module, such as sampler.py, not {path}.")
    write_text(path, text)
    lines = [
        f"from {path.stem} import SIGMAS, {name}",
        "x = torch.randn(shape, device=device) * SIGMAS[0]",
        f"samples = {name}(denoiser, x, extra_args=...)",
    ]
    facts = chosen.fitted_for
    if in_words(facts):
        lines[-1] += f"  # the denoiser with {in_words(facts)}"
    result = {
        "files": [str(path)], "nfe": chosen.nfe, **_guidance(facts), "function": name, "python": lines
    }  # fmt: skip
    report(as_json, result, lambda: "\n".join([f"wrote {path}: {chosen.nfe} network calls", "", *lines]))


def command() -> None:
    """Write a solver for diffusers, ComfyUI or k-diffusion."""


COMMANDS = {"diffusers": diffusers, "comfyui": comfyui, "k-diffusion": k_diffusion}


def _several(made: Solver | Fit, nfe: int | None, guidance: float | None) -> list[Solver]:
    """Return the solvers for the numbers of calls that a fit was for, or for one."""
    if isinstance(made, Solver) or nfe is not None:
        return [choose(made, nfe, guidance)]
    counts = sorted({row["nfe"] for row in made.report.rows if row["trained"]})
    return [choose(made, count, guidance) for count in counts]


def _listed(made: Solver | Fit) -> list[Solver]:
    """Return the solvers that were fitted."""
    if isinstance(made, Solver):
        return [made]
    trained = sorted({(row["nfe"], row["guidance"]) for row in made.report.rows if row["trained"]})
    return [choose(made, *place) for place in trained]


def _schedule(solver: Solver, name: str | None, needed: bool = True) -> Schedule | None:
    """Return the schedule that the file names, or else the one of ``--schedule``."""
    known = own_schedule(solver)
    if known is not None and name is not None:
        raise ValueError(f"--schedule: the file names the schedule {known!r}; leave the option out.")
    if known is None and name is None and needed:
        raise ValueError(
            f"--schedule: solver {solver.name!r} is a table of velocities, which names no schedule; give the "
            "network's, such as cond_ot."
        )
    return known if name is None else from_dict({"name": name})


def _guidance(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the scale of guidance, ``None`` if there is none, and its other options."""
    return {"guidance": (facts or {}).get("guidance"), **fitted_guidance(facts)}


def _row(solver: Solver, schedule: Schedule | None) -> dict[str, Any]:
    """Return the facts of a solver for ComfyUI, whose ManualSigmas cannot read numbers with an exponent."""
    settings = comfyui_settings(solver.fitted_for)
    words = f"{solver.nfe} network calls" + (settings and f", {settings}")
    facts = {"nfe": solver.nfe, **_guidance(solver.fitted_for)}
    if schedule is None:
        return {**facts, "sigmas": None, "words": words}
    straight = isinstance(schedule, CondOT)
    f = k_diffusion_adapter.sampler(solver, schedule, "straight" if straight else "VE")
    levels = [np.format_float_positional(float(s), precision=7, fractional=False, trim="0") for s in f.sigmas]
    words += f"; the levels alone, for another sampler: {', '.join(levels)}"
    return {**facts, "sigmas": levels, "words": words}


def _scheduler(folder: Path) -> Any:
    """Return the scheduler in a folder of diffusers, or in that of a pipeline."""
    parent = folder / "scheduler" if (folder / _PIPELINE).is_file() else folder
    path = parent / _SETTINGS
    if not path.is_file():
        raise ValueError(
            f"--scheduler: {folder} has neither {_PIPELINE} nor {_SETTINGS}; give the folder of a pipeline "
            "of diffusers, or of its scheduler."
        )
    name = read_object(path, "scheduler", "save_pretrained() of diffusers").get("_class_name")
    ours, library = diffusers_adapter.FewStepScheduler, require("diffusers", "diffusers")
    kind: Any = ours if name == ours.__name__ else getattr(library, str(name), None)
    known = isinstance(kind, type) and issubclass(kind, library.SchedulerMixin)
    if not known:
        raise ValueError(
            f"--scheduler: {path} is of the class {name!r:.60}, which is no scheduler of diffusers."
        )
    with reading(path, "scheduler", "save_pretrained() of diffusers"):
        return kind.from_pretrained(parent)
