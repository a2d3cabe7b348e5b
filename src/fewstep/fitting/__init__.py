"""Fitting solvers to fields."""

from ._fit import Fit, fit
from ._search import Search, search
from .losses import ENDPOINT_LOSSES, PATH_LOSSES, bound_weights, local_errors
from .report import FitReport

__all__ = [
    "ENDPOINT_LOSSES",
    "PATH_LOSSES",
    "Fit",
    "FitReport",
    "Search",
    "bound_weights",
    "fit",
    "local_errors",
    "search",
]
