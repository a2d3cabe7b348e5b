"""How far samples are from the reference, and how curved their paths."""

from . import features
from .curvature import CurvatureMeter, curvature
from .errors import METRICS, mean_psnr, per_sample_mse, pooled_rmse, psnr, rmse
from .features import feature_matrix, feature_moments
from .frechet import frechet_distance
from .moments import Moments

__all__ = [
    "METRICS",
    "CurvatureMeter",
    "Moments",
    "curvature",
    "feature_matrix",
    "feature_moments",
    "features",
    "frechet_distance",
    "mean_psnr",
    "per_sample_mse",
    "pooled_rmse",
    "psnr",
    "rmse",
]
