"""Fitting solvers to fields."""

from ._fit import Fit, fit
from ._fit_curve import CurveFit, fit_curve, is_curve_file
from ._fit_guidance import GuidedFit, fit_guidance
from ._search import Search, search
from .curve_report import CurveReport
from .losses import (
    ENDPOINT_LOSSES,
    LOSSES,
    PATH_LOSSES,
    EndpointLoss,
    Features,
    Loss,
    Nodes,
    Soft,
    Steps,
    bound_weights,
    local_errors,
    pseudo_huber,
)
from .report import FitReport

__all__ = [
    "ENDPOINT_LOSSES",
    "LOSSES",
    "PATH_LOSSES",
    "CurveFit",
    "CurveReport",
    "EndpointLoss",
    "Features",
    "Fit",
    "FitReport",
    "GuidedFit",
    "Loss",
    "Nodes",
    "Search",
    "Soft",
    "Steps",
    "bound_weights",
    "fit",
    "fit_curve",
    "fit_guidance",
    "is_curve_file",
    "local_errors",
    "pseudo_huber",
    "search",
]
