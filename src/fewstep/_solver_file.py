"""The solver file: one JSON object, readable by a person, safe to load."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import schedules
from ._json_file import read_json, write_json

if TYPE_CHECKING:
    from .solver import Solver

__all__ = ["SCHEMA", "arguments", "content", "read", "write"]

FORMAT = "fewstep.solver"
#: Channels and offsets are of schema 2; what has none of them stays what it was.
SCHEMA = 1
SCHEMAS = (SCHEMA, 2)

_REQUIRED = ("nfe", "times", "C", "D", "points")
_OPTIONAL = (
    "name", "end", "prediction", "schedule", "family", "fitted_for", "protocol", "scores", "citation",
    "offsets",
)  # fmt: skip


def write(path: str | os.PathLike[str], solver: Solver) -> None:
    """Write ``solver`` to ``path``, whole or not at all."""
    write_json(path, content(solver))


def content(solver: Solver) -> dict[str, Any]:
    """What the file of a solver holds."""
    return {
        "format": FORMAT,
        "schema": SCHEMAS[solver.channels is not None or bool(solver.offsets)],
        "name": solver.name,
        "nfe": solver.nfe,
        "prediction": solver.prediction,
        "schedule": None if solver.schedule is None else solver.schedule.to_dict(),
        "times": solver.times,
        "end": solver.end,
        "points": solver.points,
        "C": solver.C,
        "D": solver.D,
        **({"offsets": solver.offsets} if solver.offsets else {}),
        "family": solver.family,
        "fitted_for": solver.fitted_for,
        "protocol": solver.protocol,
        "scores": solver.scores,
        "citation": solver.citation,
    }


def read(path: str | os.PathLike[str], make: Callable[..., Solver]) -> Solver:
    """``make(**arguments)`` with the arguments of :class:`~fewstep.Solver` held in the file at ``path``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not a solver file that this version understands.
    """
    found = read_json(path, "solver", "solver.save()", FORMAT, SCHEMAS, _REQUIRED, _OPTIONAL)
    try:
        return make(**arguments(found))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def arguments(content: dict[str, Any]) -> dict[str, Any]:
    times = tuple(map(_number, _list("times", content["times"])))
    if content["nfe"] != len(times):
        raise ValueError(f"nfe: says {content['nfe']}, but there are {len(times)} times.")
    arguments: dict[str, Any] = {
        "times": times,
        **{
            key: tuple(tuple(map(_coefficient, _list(key, row))) for row in _list(key, content[key]))
            for key in "CD"
        },
        "offsets": tuple(map(_coefficient, _list("offsets", content.get("offsets") or []))),
        "points": tuple(map(_index, _list("points", content["points"]))),
        "end": _number(content.get("end", 1.0)),
        "citation": tuple(_list("citation", content.get("citation") or [])),
    }
    if content.get("schedule") is not None:
        if not isinstance(content["schedule"], dict):
            raise ValueError(f"schedule: must be an object with a name, not {content['schedule']!r}.")
        arguments["schedule"] = schedules.from_dict(content["schedule"])
    for key in ("name", "prediction", "family", "fitted_for", "protocol", "scores"):
        if content.get(key) is not None:
            arguments[key] = content[key]
    return arguments


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list, with rows that are lists in C and D, not {value!r}.")
    return value


def _index(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"points: must be whole numbers, not {value!r}.")
    return value


def _coefficient(value: object) -> float | tuple[float, ...]:
    """A number, or one for each channel."""
    return tuple(map(_number, value)) if isinstance(value, list) else _number(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"coefficients and times must be numbers, not {value!r}.")
    return float(value)
