"""What the verbs share: options, and reading models, solvers and configurations from words."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
import yaml

from .. import classical, reference
from .._adaptive import Adaptive
from .._device import check_device
from .._json import finite
from ..comparison import shown_name
from ..field import Field
from ..fitting import CurveFit, is_curve_file
from ..generation import parse_ranges
from ..models import BUNDLED, bundled, load_field
from ..pairs import Pairs, noise
from ..schedules import Schedule
from ..solver import Solver

__all__ = [
    "ConfigOption",
    "DeviceOption",
    "JsonOption",
    "ModelArgument",
    "SeedOption",
    "choose_solver",
    "draw_pairs",
    "is_solver_file",
    "load_model",
    "load_solvers",
    "parse_numbers",
    "read_solvers",
    "report",
    "sample_shape",
    "watched",
]


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the entries of a YAML file the defaults of the other options."""
    if path is None:
        return None
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--config: {path} cannot be read: {reason}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"--config: {path} must hold options as 'name: value', not {entries!r}.")
    known = {parameter.name for parameter in context.command.params}
    unknown = [key for key in entries if str(key).replace("-", "_") not in known]
    if unknown:
        raise ValueError(
            f"--config: {path} has unknown keys {', '.join(unknown)}; known are "
            f"{', '.join(sorted(map(str, known)))}."
        )
    options = {str(key).replace("-", "_"): value for key, value in entries.items()}
    for parameter in context.command.params:
        value = options.get(parameter.name or "")
        if isinstance(value, list) and parameter.nargs == 1 and not getattr(parameter, "multiple", False):
            options[str(parameter.name)] = ",".join(map(str, value))  # as flags have lists
    context.default_map = {**(context.default_map or {}), **options}
    return path


ModelArgument = Annotated[
    str,
    typer.Argument(
        help=f"A bundled model ({', '.join(BUNDLED)}), FILE.safetensors with a network of fewstep, or "
        "FILE.py:NAME or package.module:NAME, where NAME is a fewstep.Field or a function that returns one."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file with options; flags override it.", is_eager=True, callback=_read_config
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the noises.")]
DeviceOption = Annotated[str, typer.Option("--device", help="Torch device, such as cpu, cuda or mps.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def load_model(spec: str, device: str) -> Field:
    """The field named on the command line, on a device."""
    target = check_device(device)
    if spec.endswith(".safetensors"):
        field = load_field(spec)
    elif ":" in spec:
        source, _, name = spec.rpartition(":")
        module = _import(source)
        if not hasattr(module, name):
            raise ValueError(f"MODEL: {source} has no {name!r}.")
        value = getattr(module, name)
        field = value() if callable(value) and not isinstance(value, Field) else value
        if not isinstance(field, Field):
            raise ValueError(
                f"MODEL: {spec} is {type(field).__name__}, but must be a fewstep.Field or a function that "
                "returns one."
            )
    elif spec in BUNDLED:
        field = bundled(spec)
    else:
        raise ValueError(
            f"MODEL: {spec!r} is not bundled ({', '.join(BUNDLED)}); name your own as FILE.py:NAME, or the "
            "network that fewstep saved as FILE.safetensors."
        )
    if hasattr(field.model, "to"):
        field.model.to(target)
    return field


def _import(source: str) -> ModuleType:
    if not source.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(source)
    path = Path(source)
    if not path.exists():
        raise ValueError(f"MODEL: there is no file {source}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"MODEL: {source} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file may raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [getattr(error, "lineno", None), *(f.lineno for f in frames if f.filename == module.__file__)]
        raise ValueError(
            f"MODEL: {source}, line {lines[-1]}, cannot be run: {type(error).__name__}: {error}"
        ) from error
    return module


def load_solvers(specs: list[str], budgets: list[int], field: Field) -> dict[str, list[Solver]]:
    """As :func:`read_solvers`, with a note where a solver was fitted for something else than ``field``."""
    found = read_solvers(specs, budgets, field.schedule)
    for solvers in found.values():
        mismatches = [text for text in (solver.mismatch(field) for solver in solvers) if text is not None]
        for text in mismatches:  # once is enough
            warnings.filterwarnings("ignore", re.escape(text))
        if mismatches:
            typer.echo(f"note: {mismatches[0]}", err=True)
    return found


def read_solvers(specs: list[str], budgets: list[int], schedule: Schedule) -> dict[str, list[Solver]]:
    """Solver files, and classical solvers and curves at each NFE that they can have.

    ``midpoint`` or a curve file is taken at every number of calls in ``budgets``, ``midpoint:8`` at eight.
    """
    found: dict[str, list[Solver]] = {}
    for spec in specs:
        head, _, tail = spec.rpartition(":")
        path, calls = (head, tail) if tail.isdigit() else (spec, "")
        if is_curve_file(path):
            curve = CurveFit.load(path)
            solvers = [curve.solver(nfe) for nfe in ([int(calls)] if calls else budgets)]
            for solver in solvers:
                _add(found, "fitted curve", solver, path)
            continue
        if is_solver_file(spec):
            solver = Solver.load(spec)
            _add(found, shown_name(solver), solver, spec)
            continue
        name, _, calls = spec.partition(":")
        if calls and not (calls.isdigit() and int(calls)):
            raise ValueError(f"SOLVER: {spec!r}: after the colon comes a number of calls, as in midpoint:8.")
        method = classical.METHODS.get(name.partition("/")[0])
        for nfe in [int(calls)] if calls else budgets:
            if not calls and method is not None and method.steps(nfe, schedule) is None:
                continue
            try:
                solver = classical.named(name, nfe, schedule)
            except ValueError as error:
                raise ValueError(
                    f"SOLVER: {spec!r} is neither a solver file nor a classical one; {error}"
                ) from None
            _add(found, name, solver, spec)
    if not found:
        raise ValueError(
            f"SOLVER: none of {', '.join(specs)} can have {', '.join(map(str, budgets))} calls; pass another "
            "number."
        )
    return found


def _add(found: dict[str, list[Solver]], name: str, solver: Solver, source: str) -> None:
    """Put a solver under its name, once; others with that name and NFE are told apart by their source."""
    for candidate in (name, f"{name} ({Path(source).stem})", f"{name} ({source})"):
        rivals = [other for other in found.get(candidate, []) if other.nfe == solver.nfe]
        if solver in rivals:
            return
        if not rivals:
            found.setdefault(candidate, []).append(solver)
            return


def is_solver_file(spec: str) -> bool:
    """Whether a word names a solver file, not a classical solver."""
    return spec.endswith(".json") or Path(spec).is_file()


def choose_solver(spec: str, rtol: float | None, atol: float | None, field: Field) -> Solver | Adaptive:
    """The solver that a word names: a file, a classical solver such as ``midpoint:8``, or ``adaptive``."""
    if spec == Adaptive.name:
        return Adaptive(Adaptive.rtol if rtol is None else rtol, Adaptive.atol if atol is None else atol)
    if (rtol, atol) != (None, None):
        raise ValueError(f"--rtol, --atol: only the solver 'adaptive' has tolerances, not {spec!r}.")
    return next(iter(load_solvers([spec], [8], field).values()))[0]


def sample_shape(field: Field) -> tuple[int, ...]:
    """The shape of one sample, which a program cannot guess."""
    if field.shape is None:
        raise ValueError(
            "MODEL: the field does not say what shape it samples; give it Field(..., shape=...), or the file "
            "save_network(..., shape=...)."
        )
    return field.shape


def draw_pairs(field: Field, count: int, seed: int, device: str, as_json: bool, **options: Any) -> Pairs:
    """Noises of a seed with their reference samples."""
    x0 = noise(count, sample_shape(field), seed=seed, device=device)
    facts = {"seed": seed}
    return reference.pairs(field, x0, provenance=facts, progress=watched(as_json), **options)


def parse_numbers(text: str, option: str = "--nfe", least: int = 1) -> list[int]:
    """``4,6,8`` or ``4-8`` as a list of numbers."""
    try:
        numbers = parse_ranges(str(text))
    except ValueError:
        raise ValueError(f"{option}: must be numbers like 8, 4,6,8 or 4-8, not {text!r}.") from None
    if not numbers or min(numbers) < least:
        raise ValueError(f"{option}: must be numbers of at least {least}, not {text!r}.")
    return numbers


def watched(as_json: bool) -> bool:
    """Whether progress bars have somebody to look at them."""
    return not as_json and sys.stderr.isatty()


def report(as_json: bool, result: dict[str, Any], show: Callable[[], str]) -> None:
    """Print a result for a machine, or for a person."""
    typer.echo(json.dumps(finite(result), indent=2, allow_nan=False) if as_json else show())
