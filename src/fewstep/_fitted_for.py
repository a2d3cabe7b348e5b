"""Comparison of the field that a solver was fitted for with the field that it samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._json import finite
from .schedules import Schedule, from_dict

if TYPE_CHECKING:
    from .solver import Solver

__all__ = ["differences", "mismatch", "own_schedule", "shown"]

#: Facts of :meth:`fewstep.Field.describe` that decide which solver is good.
_KEYS = ("model", "schedule", "guidance", "guidance_rescale")
#: Types that do not identify a model, although a field without a name takes theirs: plain callables, and
#: wrappers of a network.
_ANONYMOUS = {
    "builtin_function_or_method", "function", "method", "partial",
    "DataParallel", "DistributedDataParallel", "OptimizedModule",
}  # fmt: skip


def differences(fitted_for: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Describe how a field differs from those a solver was fitted for; ``None`` if it is one of them.

    Args:
        fitted_for: facts of the field, from :meth:`fewstep.Field.describe`; under ``"also"`` a list of those
            of further fields.
        facts: facts of the field to sample.

    Returns:
        ``"guidance 2, but this field has guidance 3"``, for the fitted field that differs least.
    """
    known = [fitted_for, *(fitted_for.get("also") or ())]
    found = [(one, [key for key in _KEYS if _differ(key, one, facts)]) for one in known]
    one, keys = min(found, key=lambda pair: len(pair[1]))
    if not keys:
        return None
    was, has = (", ".join(f"{key} {shown(about.get(key))}" for key in keys) for about in (one, facts))
    return f"{was}, but this field has {has}"


def mismatch(name: str, fitted_for: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> str | None:
    """Describe in a sentence how a field differs from those that the solver of a name was fitted for."""
    found = differences(fitted_for, facts) if fitted_for is not None else None
    return None if found is None else f"solver {name!r} was fitted for {found}"


def own_schedule(solver: Solver) -> Schedule | None:
    """Return the schedule that a solver was built or fitted for; ``None`` if it names none, or several."""
    if solver.schedule is not None:
        return solver.schedule
    fitted = solver.fitted_for or {}
    named = [one["schedule"] for one in (fitted, *(fitted.get("also") or ())) if "schedule" in one]
    return from_dict(named[0]) if named and all(one == named[0] for one in named) else None


def _differ(key: str, fitted: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    # Not resized, as most guidance is, it is not named.
    if key not in fitted and (key != "guidance_rescale" or "guidance" not in fitted):
        return False
    # As read from a file, in which tuples are lists.
    was, has = (json.loads(json.dumps(finite(about.get(key)))) for about in (fitted, facts))
    if was == has or (key == "guidance" and {was, has} == {None, 1}):  # scale 1 is no guidance
        return False
    if key == "model" and fitted.get("named") != facts.get("named"):
        return False  # a name that the caller gave, and one of a type
    # A derived field, such as a reversed one, has its kind after the name.
    names = {str(about.get(key)).partition(" ")[0] for about in (fitted, facts)}
    return key != "model" or not names & _ANONYMOUS


def shown(value: Any) -> str:
    """Return a schedule as ``vp(beta_min=0.1)``, without its tables; a number with few digits."""
    if isinstance(value, Mapping):
        options = [
            f"{k}={shown(v)}" for k, v in value.items() if k != "name" and not isinstance(v, list | tuple)
        ]
        return f"{value.get('name')}({', '.join(options)})"
    return f"{value:g}" if isinstance(value, float) else str(value)
