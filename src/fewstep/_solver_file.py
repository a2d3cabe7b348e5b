"""The solver file: one JSON object, readable by people and safe to load."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from . import schedules
from ._gains import GAINS
from ._json_file import read_json, write_json
from ._reading import reading

__all__ = ["FITTED_FOR", "KINDS", "arguments", "content", "read", "write"]

FORMAT = "fewstep.solver"
SCHEMA = 1

_NUMBER = (float, None)
#: What :meth:`fewstep.Field.describe` says, and with which other fields it may come.
_FIELD: dict[str, Any] = {
    "model": (str, None),
    "prediction": (str, None),
    "schedule": ({"name": str}, None),
    "clock": ([float], str, None),
    "guidance": _NUMBER,
    "guidance_interval": ([float], None),
    "shape": ([int], None),
    "scale": _NUMBER,
}
FITTED_FOR: dict[str, Any] = {**_FIELD, "of": (_FIELD, None), "also": ([_FIELD], None)}
_REQUIRED: dict[str, Any] = {"nfe": int, "times": [float], "C": [[float]], "D": [[float]], "points": [int]}
_OPTIONAL: dict[str, Any] = {
    "name": str,
    "end": float,
    "S": [float],
    "prediction": str,
    "schedule": {"name": str},
    "family": {"name": str},
    "fitted_for": FITTED_FOR,
    "protocol": {"notes": ([str], None)},
    "scores": {"validation_rmse": ({str: _NUMBER}, None), **dict.fromkeys(GAINS, _NUMBER)},
    "citation": [str],
}
#: The kinds of what a solver file holds, beside its format and schema.
KINDS = {**_REQUIRED, **{key: (kind, None) for key, kind in _OPTIONAL.items()}}
#: In the order in which a person reads them.
_KEYS = (
    "name", "nfe", "prediction", "schedule", "times", "end", "points", "C", "D", "S", "family", "fitted_for",
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
    keys = [key for key in _KEYS if key != "S" or facts["S"]]
    return {"format": FORMAT, "schema": SCHEMA, **{key: facts[key] for key in keys}}


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
    with reading(path, "solver file", "solver.save()"):
        return make(**arguments(found))


def arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`~fewstep.Solver` in the object of its file, which is of :data:`KINDS`."""
    times = tuple(map(float, content["times"]))
    if content["nfe"] != len(times):
        raise ValueError(f"nfe: says {content['nfe']}, but there are {len(times)} times.")
    given = {key: content[key] for key in _OPTIONAL if content.get(key) is not None}
    if "schedule" in given:
        given["schedule"] = schedules.from_dict(given["schedule"])
    return {
        **given,
        "times": times,
        **{key: tuple(tuple(map(float, row)) for row in content[key]) for key in "CD"},
        "S": tuple(map(float, given.get("S", ()))),
        "points": tuple(content["points"]),
        "end": float(given.get("end", 1.0)),
        "citation": tuple(given.get("citation", ())),
    }
