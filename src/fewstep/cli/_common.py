"""Parsing of models, solvers, conditions and numbers, and printing of results."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .. import classical, reference
from .._adaptive import Adaptive
from .._device import check_device
from .._field import FieldBase
from .._hub_files import FIT, NETWORK, SOLVER
from .._json import finite
from .._names import guess
from .._noises import noise
from .._transforms import Derived
from ..comparison import shown_name
from ..families import Guided
from ..field import Field
from ..fitting import Fit
from ..generation import parse_ranges
from ..lifting import load
from ..models import BUNDLED, bundled, load_field
from ..pairs import Pairs
from ..schedules import Schedule
from ..solver import Solver

__all__ = [
    "MODEL",
    "PREFIX",
    "choose_solver",
    "draw_pairs",
    "is_solver_file",
    "load_model",
    "load_solvers",
    "move",
    "parse_numbers",
    "read_solvers",
    "report",
    "sample_shape",
    "watched",
]


#: What names a pipeline of diffusers in the place of a model.
PREFIX = "diffusers:"
#: Help of the model argument.
MODEL = (
    f"A bundled model ({', '.join(BUNDLED)}), FILE.safetensors or a folder with a network of fewstep, or "
    "FILE.py:NAME or package.module:NAME, where NAME is a fewstep.Field or a function that returns one."
)


def load_model(spec: str, device: str) -> Field:
    """Return the field named on the command line, on a device."""
    target = check_device(device)
    if spec.startswith(PREFIX):
        raise ValueError(
            f"MODEL: {spec} is a pipeline, which fewstep fit, compare, sample and check take; here, name a "
            "fewstep.Field as FILE.py:NAME."
        )
    if spec.endswith(".safetensors") or (Path(spec) / NETWORK).is_file():
        field = load_field(spec)
    elif ":" in spec:
        source, _, name = spec.rpartition(":")
        module = _import(source)
        if not hasattr(module, name):
            raise ValueError(f"MODEL: {source} has no {name!r}.")
        value = getattr(module, name)
        field = value() if _makes_something(value) else value
        if not isinstance(field, Field):
            raise ValueError(
                f"MODEL: {spec} is {type(field).__name__}, but must be a fewstep.Field or a function that "
                "returns one."
            )
    elif spec in BUNDLED:
        field = bundled(spec)
    else:
        raise ValueError(
            f"MODEL: {spec!r} is not bundled ({', '.join(BUNDLED)}){guess(spec, BUNDLED)}; name your own as "
            "FILE.py:NAME, or the network that fewstep saved as FILE.safetensors."
        )
    move(field, target)
    return field


def move(field: FieldBase, device: torch.device) -> None:
    """Move a field's networks, and the conditions that guidance leads away from, to a device."""
    for network in (field.model, field.guide):
        to = getattr(network, "to", None)
        if to is not None:
            to(device)
    field.unconditional = _moved(field.unconditional, device)
    if isinstance(field, Derived):
        move(field.field, device)


def _moved(conditions: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    changed = {
        name: _moved(value, device) for name, value in conditions.items() if isinstance(value, Mapping)
    }
    moved = {name: value.to(device) for name, value in conditions.items() if isinstance(value, torch.Tensor)}
    return {**conditions, **changed, **moved}


def _makes_something(value: object) -> bool:
    """Return whether a value is a function without arguments, such as one that makes a field."""
    if isinstance(value, Field | torch.nn.Module) or not callable(value):
        return False
    try:
        inspect.signature(value).bind()
    except (TypeError, ValueError):
        return False
    return True


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
    except Exception as error:  # the user's file may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        lines = [getattr(error, "lineno", None), *(f.lineno for f in frames if f.filename == module.__file__)]
        raise ValueError(
            f"MODEL: {source}, line {lines[-1]}, cannot be run: {type(error).__name__}: {error}"
        ) from error
    return module


def load_solvers(specs: list[str], budgets: list[int] | None, field: Field) -> dict[str, list[Solver]]:
    """Read solvers as :func:`read_solvers`, with a note if one was fitted for another field."""
    found = read_solvers(specs, budgets, field.schedule, field.guidance)
    for solvers in found.values():
        mismatches = [text for text in (solver.mismatch(field) for solver in solvers) if text is not None]
        for text in mismatches:  # once is enough
            warnings.filterwarnings("ignore", re.escape(text))
        if mismatches:
            print(f"note: {mismatches[0]}", file=sys.stderr)
    return found


def read_solvers(
    specs: list[str], budgets: list[int] | None, schedule: Schedule, guidance: float | None = None
) -> dict[str, list[Solver]]:
    """Read files of solvers and fits, and make classical solvers with each NFE that they allow.

    ``midpoint``, or a fit for every number of calls, is made for all ``budgets``, ``midpoint:8`` for eight.
    Without any, a fit is made for the most calls that it was fitted for, and a classical solver for eight.
    """
    found: dict[str, list[Solver]] = {}
    for spec in specs:
        head, _, tail = spec.rpartition(":")
        path, calls = (head, tail) if tail.isdigit() else (spec, "")
        if is_solver_file(path):
            for solver in _fitted(load(path), int(calls) if calls else None, budgets, guidance):
                _add(found, shown_name(solver), solver, path)
            continue
        if spec.startswith(PREFIX):
            raise ValueError(
                f"SOLVER: {spec} is a pipeline, not a solver; give a solver file, or a classical solver such "
                "as midpoint:8."
            )
        name, _, calls = spec.partition(":")
        if calls and not (calls.isdigit() and int(calls)):
            raise ValueError(f"SOLVER: {spec!r}: after the colon comes a number of calls, as in midpoint:8.")
        method = classical.METHODS.get(name.partition("/")[0])
        for nfe in [int(calls)] if calls else budgets or [8]:
            if not calls and method is not None and method.steps(nfe, schedule) is None:
                continue
            try:
                solver = classical.named(name, nfe, schedule)
            except ValueError as error:
                why = "is neither a solver file nor a classical one" if method is None else "cannot be made"
                raise ValueError(f"SOLVER: {spec!r} {why}; {error}") from None
            _add(found, name, solver, spec)
    if not found:  # classical ones without a number of calls of their own
        method = classical.METHODS[specs[0].partition("/")[0]]
        some = [str(calls) for calls in range(1, 20) if method.steps(calls, schedule)][:3]
        raise ValueError(
            f"SOLVER: none of {', '.join(specs)} can have {', '.join(map(str, budgets or [8]))} calls; "
            f"{specs[0]} makes {', '.join(some)}, ..., so pass another number."
        )
    return found


def _fitted(
    made: Solver | Fit, calls: int | None, budgets: list[int] | None, guidance: float | None
) -> list[Solver]:
    """Return a solver, or those of a fit for some numbers of calls and a guidance scale."""
    if isinstance(made, Solver):
        if calls not in (None, made.nfe):
            raise ValueError(f"SOLVER: {made.name} makes {made.nfe} calls, not {calls}; leave :{calls} out.")
        return [made]
    scale = guidance or 1.0 if isinstance(made.solvers, Guided) else None
    if calls is None and made.any_nfe:
        return [made.at(nfe, scale) for nfe in budgets or [max(row["nfe"] for row in made.report.rows)]]
    return [made.at(calls, scale)]


def _add(found: dict[str, list[Solver]], name: str, solver: Solver, source: str) -> None:
    """Add a solver under its name, once; the source is added to the name of others with the same NFE."""
    for candidate in (name, f"{name} ({Path(source).stem})", f"{name} ({source})"):
        rivals = [other for other in found.get(candidate, []) if other.nfe == solver.nfe]
        if solver in rivals:
            return
        if not rivals:
            found.setdefault(candidate, []).append(solver)
            return


def is_solver_file(spec: str) -> bool:
    """Return whether a word names a solver file, or a folder with one, not a classical solver."""
    folder = any((Path(spec) / name).is_file() for name in (SOLVER, FIT))
    return folder or spec.endswith(".json") or Path(spec).is_file()


def choose_solver(spec: str, field: Field, **options: Any) -> Solver | Adaptive:
    """Return the solver of a word: a file, a classical solver such as ``midpoint:8``, or ``adaptive``.

    Options are those of ``adaptive``, ``None`` for its defaults.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if spec == Adaptive.name:
        return Adaptive(**given)
    if given:
        flags = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{flags}: only the solver 'adaptive' has it, not {spec!r}.")
    return next(iter(load_solvers([spec], None, field).values()))[0]


def sample_shape(field: Field) -> tuple[int, ...]:
    """Return the shape of one sample, which the field must have."""
    if field.shape is None:
        raise ValueError(
            "MODEL: the field does not say what shape it samples; give it Field(..., shape=...), or the file "
            "save_network(..., shape=...)."
        )
    return field.shape


def draw_pairs(field: Field, count: int, seed: int, device: str, as_json: bool, **options: Any) -> Pairs:
    """Draw noises of a seed and compute their reference samples."""
    x0 = noise(count, sample_shape(field), seed=seed, device=device)
    facts = {"seed": seed}
    options = {"rtol": reference.finest(field), "atol": reference.finest(field), **options}
    return reference.pairs(field, x0, provenance=facts, progress=watched(as_json), **options)


def parse_numbers(text: str, option: str = "--nfe", least: int = 1) -> list[int]:
    """Return ``4,6,8`` or ``4-8`` as a list of numbers."""
    try:
        numbers = parse_ranges(str(text))
    except ValueError:
        raise ValueError(f"{option}: must be numbers like 8, 4,6,8 or 4-8, not {text!r}.") from None
    if not numbers or min(numbers) < least:
        raise ValueError(f"{option}: must be numbers of at least {least}, not {text!r}.")
    return numbers


def watched(as_json: bool) -> bool:
    """Return whether to show progress bars."""
    return not as_json and sys.stderr.isatty()


def report(as_json: bool, result: dict[str, Any], show: Callable[[], str]) -> None:
    """Print a result as JSON or as text."""
    print(json.dumps(finite(result), indent=2, allow_nan=False) if as_json else show(), flush=True)
