"""Noise schedules: the coefficients of data and noise in ``x_t = alpha x1 + sigma x0``.

Time runs from 0 (noise) to 1 (data). Every schedule gives ``alpha``, ``sigma`` and their exact
derivatives, the log signal-to-noise ratio ``lambda = log(alpha / sigma)`` and the inverse of ``lambda``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._names import check_name
from .._reading import check_arguments
from ._continuous import VE, VP, CondOT, Cosine, LinearVP, Polynomial
from ._discrete import DDPM, Discrete
from ._schedule import Reversed, Schedule, SchedulePoint

__all__ = [
    "DDPM",
    "VE",
    "VP",
    "CondOT",
    "Cosine",
    "Discrete",
    "LinearVP",
    "Polynomial",
    "Reversed",
    "Schedule",
    "SchedulePoint",
    "from_dict",
]

_SCHEDULES: dict[str, type[Schedule]] = {
    cls.name: cls for cls in (CondOT, Polynomial, VP, Cosine, LinearVP, VE, DDPM, Discrete, Reversed)
}


def from_dict(description: Mapping[str, Any]) -> Schedule:
    """Return the schedule described by :meth:`Schedule.to_dict`.

    Raises:
        ValueError: on an unknown name or unknown parameters.
    """
    options = dict(description)
    name = options.pop("name", None)
    check_name("schedule:", name, _SCHEDULES)
    if isinstance(options.get("schedule"), Mapping):
        options["schedule"] = from_dict(options["schedule"])
    try:
        check_arguments(_SCHEDULES[name], options)
        return _SCHEDULES[name](**options)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"schedule {name!r}: parameters {options!r:.60} do not fit: {error}.") from None
