"""fewstep: samples of ODE-based generative models in very few network calls."""

from . import (
    adapters,
    checking,
    classical,
    data,
    families,
    fitting,
    flows,
    generation,
    inspection,
    metrics,
    models,
    networks,
    pairs,
    reference,
    schedules,
)
from ._adaptive import Adaptive, AdaptiveSamples
from ._likelihood import Likelihood, log_likelihood
from .checking import Check, check
from .classical import grids
from .comparison import Comparison, compare
from .field import Field
from .fitting import (
    CurveFit,
    CurveReport,
    Fit,
    FitReport,
    GuidedFit,
    Search,
    fit,
    fit_curve,
    fit_guidance,
    search,
)
from .generation import generate
from .inspection import Inspection, inspect
from .pairs import Pairs, noise
from .solver import Path, Solver

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "AdaptiveSamples",
    "Check",
    "Comparison",
    "CurveFit",
    "CurveReport",
    "Field",
    "Fit",
    "FitReport",
    "GuidedFit",
    "Inspection",
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
    "data",
    "families",
    "fit",
    "fit_curve",
    "fit_guidance",
    "fitting",
    "flows",
    "generate",
    "generation",
    "grids",
    "inspect",
    "inspection",
    "log_likelihood",
    "metrics",
    "models",
    "networks",
    "noise",
    "pairs",
    "reference",
    "schedules",
    "search",
]
