"""Analysis of a solver from its numbers alone: consistency, order, stability, requirements."""

from ._inspect import Inspection, inspect
from .convergence import Convergence, refinement
from .exactness import Exactness
from .needs import Needs
from .stability import ErrorGrowth, Stability

__all__ = [
    "Convergence",
    "ErrorGrowth",
    "Exactness",
    "Inspection",
    "Needs",
    "Stability",
    "inspect",
    "refinement",
]
