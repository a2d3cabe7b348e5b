"""Texts of model cards for solvers, fits and networks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._card_use import use
from ._fitted_for import shown
from ._fitted_guidance import INSIDE, fitted_guidance, in_words
from ._gains import best_rival, ratio_to_rival, times
from ._markdown import line, quoted
from ._version import __version__

if TYPE_CHECKING:
    from .solver import Solver

__all__ = ["CITATION", "fitted_card", "network_card"]

CITATION = (
    "The fewstep authors. fewstep: samples of ODE-based generative models in very few network calls. Version "
    f"{__version__}."
)


def fitted_card(
    name: str,
    files: Sequence[str],
    load: str,
    calls: Sequence[int],
    solver: Solver,
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Return the card of a solver or a fit, from the objects in their files.

    Args:
        name: the repository or folder.
        files: names of the files in it.
        load: lines of Python that make ``solver``.
        calls: numbers of network calls.
        solver: the solver that these lines make.
        report: the report of the fit, without rows.
        rows: rows of the report.
    """
    fitted_for = solver.fitted_for
    kind = "A solver" if len(calls) == 1 else "Solvers"
    what = f"{kind} of {' or '.join(map(str, calls))} network calls"
    origin = "fitted to the network below" if fitted_for else "not fitted to any network"
    more = f", and `{files[1]}` the weights of what corrects its states" if files[1:] else ""
    return _joined(
        f"# {name.rpartition('/')[2]}",
        f"{what} for flow and diffusion models, {origin}. `{files[0]}`, written by fewstep {__version__}, "
        f"has its times and coefficients{more}; the network is not in it.",
        *_field_part(fitted_for, rows),
        *_figures(report, rows),
        "## Use",
        use(name, files, load, solver),
        *_limits(fitted_for, report.get("notes") or ()),
        *_cite(solver.citation),
    )


def network_card(
    name: str, kind: str, arguments: Mapping[str, Any], weights: int, facts: Mapping[str, Any]
) -> str:
    """Return the card of a network of :mod:`fewstep.networks`.

    Args:
        name: the repository or folder.
        kind: name of its class.
        arguments: arguments of the class.
        weights: number of weights.
        facts: shape, schedule, prediction and clock of its field, if known.
    """
    title = name.rpartition("/")[2]
    known = {"class": f"`fewstep.networks.{kind}`", "weights": f"{weights:,}"}
    described = {_LABELS.get(key, key): _fact(key, value) for key, value in facts.items()}
    given = [quoted(f"{key}={value!r}") for key, value in arguments.items() if not isinstance(value, Mapping)]
    code = ["import fewstep as fs", "", f"network = fs.networks.{kind}.from_pretrained({json.dumps(name)})"]
    if facts:
        fetched = f", after hf download {name} --local-dir {title}" if "/" in name else ""
        code += [f"# as a field, with its schedule and prediction, from a folder{fetched}"]
        code += [f"field = fs.models.load_field({json.dumps(title)})"]
    return _joined(
        f"# {title}",
        f"A network for flow or diffusion models in one safetensors file, of fewstep {__version__}.",
        _bullets([f"{key}: {value}" for key, value in {**known, **described}.items()]),
        f"Arguments: {', '.join(given)}." if given else "",
        "## Use",
        "\n".join(["```python", *code, "```"]),
        *_cite(()),
    )


#: Labels of facts that are not their keys.
_LABELS = {"model": "network", "scale": INSIDE, "shape": "shape of a sample"}


def _field_part(fitted_for: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not fitted_for:
        return []
    scales = [row["guidance"] for row in rows if row.get("guidance") is not None]
    if scales:
        key = "guidance" if fitted_for.get("scale") is None else "scale"
        fitted_for = {**fitted_for, key: f"{min(scales):g} to {max(scales):g}"}
    keys = ("model", "prediction", "schedule", "shape", "conditions")
    facts = {key: fitted_for[key] for key in keys if key in fitted_for}
    facts |= fitted_guidance(fitted_for) or {"guidance": None}
    lines = [f"{_LABELS.get(key, key)}: {_fact(key, value)}" for key, value in facts.items()]
    for other in fitted_for.get("also") or ():
        guidance = line(in_words(other) or "no guidance")
        lines.append(f"also for: {_fact('model', other.get('model'))}, {guidance}")
    return ["## Fitted for", _bullets(lines)]


def _fact(key: str, value: Any) -> str:
    if value is None:
        return "none" if key == "guidance" else "not known"
    if isinstance(value, list | tuple):
        return line((" x " if key == "shape" else ", ").join(map(str, value)))
    text = line(shown(value)).removesuffix("()")
    return quoted(text) if key == "model" else text


def _figures(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of errors, and what they are."""
    known = [(row, _errors(row)) for row in rows]
    cells = [_cells(row, errors) for row, errors in known if "fitted" in errors and len(errors) > 1]
    if not cells:
        return []
    columns = [column for column in cells[0] if any(row[column] for row in cells)]
    table = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in cells)]
    parts = ["## Figures", "\n".join(f"| {' | '.join(row)} |" for row in table), _measured(report)]
    if any(row.get("trained") is False for row in rows):
        parts.append("\\* not fitted, only validated")
    return parts


def _cells(row: Mapping[str, Any], errors: Mapping[str, float]) -> dict[str, str]:
    rival, typical, guidance = best_rival(errors), row.get("typical"), row.get("guidance")
    star = "\\*" if row.get("trained") is False else ""
    return {
        "network calls": f"{row['nfe']}{star}",
        "guidance": "" if guidance is None else f"{guidance:g}",
        "network": "" if row.get("model") is None else _fact("model", row["model"]),
        "RMSE": f"{errors['fitted']:.4g}",
        "best other solver": f"{rival}, {errors[rival]:.4g}",
        "ratio": times(ratio_to_rival(errors)),
        "ratio for the typical noise": "" if typical is None else times(typical),
    }


def _errors(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the errors of a row; those that a file has no number for are infinite."""
    return {key: math.inf if value is None else value for key, value in (row.get("errors") or {}).items()}


def _measured(report: Mapping[str, Any]) -> str:
    # Protocols of solvers may hold anything under these names.
    pairs, reference = (
        value if isinstance(value, Mapping) else {} for value in map(report.get, ("pairs", "reference"))
    )
    count = f"{pairs['validation']} noises" if "validation" in pairs else "some noises"
    method = f" of {reference['method']}" if "method" in reference else ""
    rtol = f" (rtol {reference['rtol']:g})" if isinstance(reference.get("rtol"), float) else ""
    if "steps" in reference:  # of a fixed grid, which has no tolerance
        rtol = f" of {reference['steps']} steps"
    return (
        f"RMSE to reference samples{method}{rtol} from the same {count}. The fit was chosen by these noises, "
        "which flatters it a little; `fewstep compare` measures on fresh ones."
    )


def _limits(fitted_for: Mapping[str, Any] | None, notes: Sequence[str]) -> list[str]:
    general = [
        "It is for this network, schedule and guidance; for another, fit again.",
        "At best its samples are those that many calls of the network give.",
    ]
    lines = [*(general if fitted_for else ()), *map(line, notes)]
    return ["## Limits", _bullets(lines)] if lines else []


def _cite(citation: Sequence[str]) -> list[str]:
    return ["## Citation", _bullets([*map(line, citation), CITATION])]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {one}" for one in lines)


def _joined(*parts: str) -> str:
    return "\n\n".join(filter(None, parts)) + "\n"
