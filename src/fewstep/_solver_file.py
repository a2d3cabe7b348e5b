"""The solver file: one JSON object, readable by people and safe to load."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from . import schedules
from ._json_file import read_json, write_json

__all__ = ["arguments", "content", "read", "write"]

FORMAT = "fewstep.solver"
SCHEMA = 1

_REQUIRED = ("nfe", "times", "C", "D", "points")
_OPTIONAL = (
    "name", "end", "prediction", "schedule", "family", "fitted_for", "protocol", "scores", "citation",
)  # fmt: skip
#: In the order in which a person reads them.
_KEYS = (
    "name", "nfe", "prediction", "schedule", "times", "end", "points", "C", "D", "family", "fitted_for",
    "protocol", "scores", "citation",
)  # fmt: skip

Made = TypeVar("Made")


def content(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The object in the file of a solver, given the arguments of :class:`~fewstep.Solver` that make it."""
    schedule = arguments["schedule"]
    facts = {
        **arguments,
        "nfe": len(arguments["times"]),
        "schedule": None if schedule is None else schedule.to_dict(),
    }
    return {"format": FORMAT, "schema": SCHEMA, **{key: facts[key] for key in _KEYS}}


def write(path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> None:
    """Write the solver that arguments make to ``path``, whole or not at all."""
    write_json(path, content(arguments))


def read(path: str | os.PathLike[str], make: Callable[..., Made]) -> Made:
    """``make(**arguments)`` with the arguments of :class:`~fewstep.Solver` held in the file at ``path``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not a solver file that this version understands.
    """
    found = read_json(path, "solver", "solver.save()", FORMAT, SCHEMA, _REQUIRED, _OPTIONAL)
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
            key: tuple(tuple(map(_number, _list(key, row))) for row in _list(key, content[key]))
            for key in "CD"
        },
        "points": tuple(map(_index, _list("points", content["points"]))),
        "end": _number(content.get("end", 1.0)),
        "citation": tuple(_list("citation", content.get("citation") or [])),
    }
    if content.get("schedule") is not None:
        arguments["schedule"] = schedules.from_dict(_object("schedule", content["schedule"]))
    for key in ("family", "fitted_for", "protocol", "scores"):
        if content.get(key) is not None:
            arguments[key] = _object(key, content[key])
    for key in ("name", "prediction"):
        if content.get(key) is not None:
            arguments[key] = content[key]
    return arguments


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list, with rows that are lists in C and D, not {value!r}.")
    return value


def _object(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: must be an object with names and values, not {value!r}.")
    return value


def _index(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"points: must be whole numbers, not {value!r}.")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"coefficients and times must be numbers, not {value!r}.")
    return float(value)
