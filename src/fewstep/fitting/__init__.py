"""Fitting solvers to fields."""

from ._fit import Fit, fit
from ._fit_curve import CurveFit, fit_curve, is_curve_file
from ._fit_guidance import GuidedFit, fit_guidance
from ._search import Search, search
from .curve_report import CurveReport
from .losses import ENDPOINT_LOSSES, PATH_LOSSES, bound_weights, local_errors
from .report import FitReport

__all__ = [
    "ENDPOINT_LOSSES",
    "PATH_LOSSES",
    "CurveFit",
    "CurveReport",
    "Fit",
    "FitReport",
    "GuidedFit",
    "Search",
    "bound_weights",
    "fit",
    "fit_curve",
    "fit_guidance",
    "is_curve_file",
    "local_errors",
    "search",
]
