"""Metrics of samples: truncation error, curvature, distance to the data, and memorisation."""

from . import features
from .curvature import CurvatureMeter, curvature, relative_curvature, straightness
from .errors import decibels, mean_psnr, per_sample_mse, pooled_rmse, psnr, rmse
from .estimate import ErrorMeter, Estimate, estimate_error, paired_difference
from .features import feature_matrix, feature_moments
from .figures import FIGURES, METRICS, Figure, Metric, figure
from .frechet import frechet_distance
from .inversion import Inversion, inversion_error
from .kernel import KernelDistance, kernel_distance, squared_mmd
from .manifold import Fidelity, precision_recall
from .moments import Moments
from .neighbours import NeighbourCheck, nearest_neighbours

__all__ = [
    "FIGURES",
    "METRICS",
    "CurvatureMeter",
    "ErrorMeter",
    "Estimate",
    "Fidelity",
    "Figure",
    "Inversion",
    "KernelDistance",
    "Metric",
    "Moments",
    "NeighbourCheck",
    "curvature",
    "decibels",
    "estimate_error",
    "feature_matrix",
    "feature_moments",
    "features",
    "figure",
    "frechet_distance",
    "inversion_error",
    "kernel_distance",
    "mean_psnr",
    "nearest_neighbours",
    "paired_difference",
    "per_sample_mse",
    "pooled_rmse",
    "precision_recall",
    "psnr",
    "relative_curvature",
    "rmse",
    "squared_mmd",
    "straightness",
]
