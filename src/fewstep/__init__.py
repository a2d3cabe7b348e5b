"""fewstep: samples of ODE-based generative models in very few network calls."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import (
        adapters,
        checking,
        classical,
        comparison,
        data,
        families,
        fitting,
        flows,
        generation,
        inspection,
        lifting,
        metrics,
        models,
        networks,
        pairs,
        reference,
        report,
        schedules,
    )
    from ._adaptive import Adaptive, AdaptiveSamples
    from ._likelihood import Likelihood, log_likelihood
    from ._noises import noise, noises
    from .checking import Check, check
    from .classical import grids
    from .comparison import Comparison, compare
    from .field import Field
    from .fitting import (
        Fit,
        FitReport,
        Search,
        fit,
        search,
    )
    from .generation import generate
    from .inspection import Inspection, inspect
    from .lifted import Lifted
    from .lifting import lift, load
    from .pairs import Pairs
    from .solver import Path, Solver

__all__ = [
    "Adaptive",
    "AdaptiveSamples",
    "Check",
    "Comparison",
    "Field",
    "Fit",
    "FitReport",
    "Inspection",
    "Lifted",
    "Likelihood",
    "Pairs",
    "Path",
    "Search",
    "Solver",
    "adapters",
    "check",
    "checking",
    "classical",
    "compare",
    "comparison",
    "data",
    "families",
    "fit",
    "fitting",
    "flows",
    "generate",
    "generation",
    "grids",
    "inspect",
    "inspection",
    "lift",
    "lifting",
    "load",
    "log_likelihood",
    "metrics",
    "models",
    "networks",
    "noise",
    "noises",
    "pairs",
    "reference",
    "report",
    "schedules",
    "search",
]

#: Where names come from, which is imported when one is used; all others are modules of their own.
_SOURCES = {
    "_adaptive": ("Adaptive", "AdaptiveSamples"),
    "checking": ("Check", "check"),
    "classical": ("grids",),
    "comparison": ("Comparison", "compare"),
    "field": ("Field",),
    "fitting": ("Fit", "FitReport", "Search", "fit", "search"),
    "generation": ("generate",),
    "inspection": ("Inspection", "inspect"),
    "lifted": ("Lifted",),
    "lifting": ("lift", "load"),
    "_likelihood": ("Likelihood", "log_likelihood"),
    "_noises": ("noise", "noises"),
    "pairs": ("Pairs",),
    "solver": ("Path", "Solver"),
}  # fmt: skip
_SOURCE = {name: module for module, names in _SOURCES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is used for the first time: torch takes seconds to load, and ``fewstep --help`` none."""
    if name not in __all__:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    module = import_module(f".{_SOURCE.get(name, name)}", __name__)
    value = getattr(module, name) if name in _SOURCE else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
